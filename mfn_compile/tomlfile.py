"""TOML files of users: read within bounds, checked against a model, explained when wrong."""

from __future__ import annotations

import difflib
import tomllib
import types
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from mfn_compile.errors import BadInputError
from mfn_compile.wording import wording

MAX_BYTES = 1 << 20  # a recipe or target is a few kilobytes; more is no such file
Model = TypeVar("Model", bound=BaseModel)


def find_named(name_or_path: str | Path, folder: Path, kind: str) -> Path:
    """The TOML file of a shipped name (`folder`/name.toml) or of a user's own path.

    Raises:
        BadInputError: neither exists; the message lists the names that do.
    """
    text = str(name_or_path)
    if text.endswith(".toml") or "/" in text:
        return Path(text)
    path = folder / f"{text}.toml"
    if path.is_file():
        return path
    known = sorted(p.stem for p in folder.glob("*.toml"))
    near = difflib.get_close_matches(text, known, n=1)
    raise BadInputError(
        f"There is no {kind} named {text!r}",
        why=f"Known: {', '.join(known)}",
        hint=f"Did you mean {near[0]!r}?" if near else f"Or give the path of your own {kind} TOML",
    )


def load_model(path: Path, model: type[Model], kind: str) -> Model:
    """Read `path` and validate it as `model`.

    Raises:
        BadInputError: unreadable, too large, not TOML, or a key or value is wrong.
    """
    return validate(model, read_toml(path, kind), where=str(path), kind=kind)


def read_toml(path: Path, kind: str) -> dict[str, Any]:
    """Parse a TOML file of at most MAX_BYTES.

    Raises:
        BadInputError: unreadable, too large or not TOML.
    """
    try:
        with path.open("rb") as handle:
            raw = handle.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadInputError(
            f"The {kind} cannot be read",
            where=str(path),
            why=error.strerror or str(error),
            hint=f"`mfn-compile {kind}s` lists the ones that ship with the toolkit",
        ) from error
    if len(raw) > MAX_BYTES:
        raise BadInputError(f"The {kind} is larger than {MAX_BYTES} bytes", where=str(path))
    try:
        return tomllib.loads(raw.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInputError(
            f"The {kind} is not valid TOML", where=str(path), why=str(error)
        ) from error


def validate(model: type[Model], data: dict[str, Any], *, where: str, kind: str) -> Model:
    """Validate `data`, naming the first wrong key and the nearest valid one.

    Raises:
        BadInputError: a key is unknown, missing or has a wrong value.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _explained(model, error, where, kind) from error


def _explained(
    model: type[BaseModel], error: ValidationError, where: str, kind: str
) -> BadInputError:
    found = error.errors(include_url=False)
    # A misspelt key is also a missing one; the misspelling is what helps.
    first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])
    keys = [str(part) for part in first["loc"]]
    dotted = ".".join(keys)
    more = f"{len(found)} problems in all" if len(found) > 1 else ""
    if first["type"] == "extra_forbidden":
        valid = sorted(_fields(model, keys[:-1]))
        near = difflib.get_close_matches(keys[-1], valid, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        return BadInputError(
            f"The {kind} has an unknown key {dotted!r}",
            where=where,
            hint=f"{hint}Valid here: {', '.join(valid)}",
        )
    if first["type"] == "missing":
        field = _fields(model, keys[:-1]).get(keys[-1])
        says = f": {field.description}" if field and field.description else ""
        return BadInputError(
            f"The {kind} lacks the key {dotted!r}", where=where, why=more, hint=f"Add it{says}"
        )
    return BadInputError(
        f"The {kind} has a wrong value at {dotted!r}" if dotted else f"The {kind} is wrong",
        where=where,
        why=wording(first),
        hint=more,
    )


def _fields(model: type[BaseModel], parents: list[str]) -> dict[str, FieldInfo]:
    """What `model` accepts below `parents`, by key."""
    for parent in (part for part in parents if not part.isdigit()):
        field = model.model_fields.get(parent)
        inner = _model_of(field.annotation) if field else None
        if inner is None:
            return {}
        model = inner
    return model.model_fields


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType, tuple):
        for part in get_args(annotation):
            if (found := _model_of(part)) is not None:
                return found
    return None
