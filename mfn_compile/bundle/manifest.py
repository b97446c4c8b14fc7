"""manifest.json: what a bundle holds, and the check that it still does."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from mfn_compile.errors import BadInputError, InternalCheckError
from mfn_compile.frozen import Frozen
from mfn_compile.hashing import file_sha256
from mfn_compile.knob_result import PLANES, KnobSearch, OpenVinoUse
from mfn_compile.model.preprocessing import Preprocessing
from mfn_compile.results import CheckpointInfo, Environment, ExportResult, Result

MANIFEST = "manifest.json"
SCHEMA: Literal["mfn-compile/bundle/1"] = "mfn-compile/bundle/1"
FAMILY = "mfn-compile/bundle/"
CHUNK = 1 << 20
HINT = "Name the folder that mfn-compile wrote, the one that holds manifest.json"


def check_name(name: str) -> str:
    """`name` itself when it is a plain relative path that stays inside the bundle.

    Raises:
        ValueError: the name is absolute, climbs out, or means different files on other systems.
    """
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{name!r} is not a relative path inside the bundle")
    if any(ord(char) < 32 or char in '\\:*?"<>|\x7f' for char in name):
        raise ValueError(f"{name!r} has a character that not every file system takes")
    if name.casefold() == MANIFEST:
        raise ValueError(f"{MANIFEST} is written by the bundle itself")
    return name


def check_names(names: list[str]) -> None:
    """Refuse names that cannot all be in one folder.

    Raises:
        ValueError: two names differ in case only, or one is a folder of another.
    """
    seen: set[str] = set()
    for name in sorted(names):
        check_name(name)
        folded = name.casefold()
        if folded in seen:
            raise ValueError(f"{name!r} is there twice (upper and lower case count as one)")
        seen.add(folded)
    for folded in seen:
        parts = folded.split("/")
        for depth in range(1, len(parts)):
            parent = "/".join(parts[:depth])
            if parent in seen:
                raise ValueError(f"{parent!r} is both a file and a folder")


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class FileEntry(Frozen):
    """One file of a bundle."""

    name: Annotated[str, AfterValidator(check_name)] = Field(
        description="path relative to the bundle, with forward slashes"
    )
    bytes: int = Field(ge=0)
    sha256: Sha256


class BundleInfo(Frozen):
    """What an integrator must know beside the files.

    A network's input normally is the float tensor that `preprocessing` describes: its
    normalization is then outside of the graph, and the caller's work.
    """

    target: str
    checkpoint: str = Field(description="name of the checkpoint file")
    checkpoint_sha256: Sha256
    demo: bool = Field(default=False, description="the demo model on rendered faces")
    preprocessing: Preprocessing = Field(
        description="pixels to network input: crop size, colour order, (pixel - mean) / std"
    )
    normalization: Literal["outside of the graph", "inside of the artifact"] = Field(
        default="outside of the graph", description="who applies mean and std"
    )
    input: str = Field(default="float32 [1, 3, height, width]", description="type and layout")
    embedding_width: int = Field(gt=0)
    tools: dict[str, str] = Field(description="version of every tool used, by its name")
    openvino: OpenVinoUse | None = Field(default=None, description="how to run model/*.xml")
    knobs: KnobSearch | None = Field(
        default=None, description="what was tried to make it faster, and what that brought"
    )

    @classmethod
    def of(cls, result: Result) -> BundleInfo:
        """The facts that a result already holds."""
        info = cls.about(
            result.target, result.checkpoint, result.export, result.environment, result.version
        )
        if result.backend is None:
            return info
        use, shape = result.backend.openvino, info.preprocessing
        update: dict[str, object] = {"openvino": use, "knobs": result.backend.knobs}
        if result.backend.firmware is not None:
            update["normalization"] = "inside of the artifact"
            update["input"] = f"uint8 [{shape.height}, {shape.width}, 3], RGB"
        elif use is not None and use.input != PLANES:
            update["input"] = use.input_of(shape.height, shape.width)
            if use.normalizes:
                update["normalization"] = "inside of the artifact"
        return info.model_copy(update=update)

    @classmethod
    def about(
        cls,
        target: str,
        checkpoint: CheckpointInfo,
        export: ExportResult,
        environment: Environment,
        version: str,
    ) -> BundleInfo:
        """The facts of a bundle that may have no report."""
        shape = checkpoint.preprocessing
        batch = "N" if export.dynamic_batch else "1"
        return cls(
            target=target,
            checkpoint=checkpoint.name,
            checkpoint_sha256=checkpoint.sha256,
            demo=checkpoint.demo,
            preprocessing=shape,
            input=f"float32 [{batch}, 3, {shape.height}, {shape.width}]",
            embedding_width=checkpoint.embedding_width,
            tools={
                "mfn-compile": version,
                "python": environment.python,
                **environment.packages,
            },
        )


class Manifest(BundleInfo):
    """manifest.json."""

    schema_: Literal["mfn-compile/bundle/1"] = Field(default=SCHEMA, alias="schema")
    files: tuple[FileEntry, ...]

    model_config = ConfigDict(populate_by_name=True)

    @field_validator("files")
    @classmethod
    def _names_fit(cls, files: tuple[FileEntry, ...]) -> tuple[FileEntry, ...]:
        check_names([entry.name for entry in files])
        return files

    def to_json(self) -> str:
        """The text of manifest.json: schema first, then the facts, then the files by name."""
        document = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        document["tools"] = dict(sorted(document["tools"].items()))
        document["files"] = sorted(document["files"], key=lambda entry: str(entry["name"]))
        ordered = {"schema": document.pop("schema")} | document
        return json.dumps(ordered, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_manifest(bundle: Path) -> Manifest:
    """The manifest of a bundle.

    Raises:
        BadInputError: the folder is not a bundle, or its manifest is damaged.
    """
    path = bundle / MANIFEST
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise BadInputError(
                "The bundle's manifest is not a regular file", where=str(path), hint=HINT
            )
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(
            "The folder is not a bundle of mfn-compile",
            where=str(bundle),
            why=f"its {MANIFEST} cannot be read: {_reason(error)}",
            hint=HINT,
        ) from error
    return _parse(text, path)


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror if isinstance(error, OSError) else error.reason) or str(error)


def _parse(text: str, path: Path) -> Manifest:
    try:
        return Manifest.model_validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadInputError(
            "The bundle's manifest is damaged or of another version",
            where=f"{path}{': ' + place if place else ''}",
            why=first["msg"],
            hint="Build the bundle again",
        ) from error


def walk_files(folder: Path) -> Iterator[str]:
    """Names of everything in a folder that is no folder itself; links are not followed."""
    for where, folders, files in os.walk(folder, followlinks=False):
        links = [name for name in folders if os.path.islink(os.path.join(where, name))]
        for name in files + links:
            yield Path(where, name).relative_to(folder).as_posix()


def verify_bundle(path: Path) -> None:
    """Compare a bundle's files with its manifest.

    Raises:
        BadInputError: the folder is not a bundle.
        InternalCheckError: names every file that is missing, that is extra, or that differs.
    """
    entries = {entry.name: entry for entry in read_manifest(path).files}
    found = set(walk_files(path)) - {MANIFEST}
    problems = [f"{name} is missing" for name in sorted(entries.keys() - found)]
    problems += [f"{name} is not in the manifest" for name in sorted(found - entries.keys())]
    for name in sorted(found & entries.keys()):
        problem = _difference(path / name, entries[name])
        if problem:
            problems.append(f"{name} {problem}")
    if problems:
        raise InternalCheckError(
            "The bundle is not what its manifest says",
            where=str(path),
            why="; ".join(problems),
            hint="Do not ship it; build it again or copy it again from where it is whole",
        )


def _difference(path: Path, entry: FileEntry) -> str:
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        return "is a link or a special file"
    if status.st_size != entry.bytes:
        return f"has {status.st_size:,} bytes instead of {entry.bytes:,}"
    try:
        return "" if file_sha256(path) == entry.sha256 else "differs in its content"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
