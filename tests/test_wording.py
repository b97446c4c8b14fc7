"""Any wrong value of a TOML file is explained without pydantic's own words."""

from __future__ import annotations

import copy
import datetime
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from mfn_compile.errors import BadInputError
from mfn_compile.recipe import Recipe
from mfn_compile.resources import data_dir
from mfn_compile.target import Target
from mfn_compile.tomlfile import validate

FOREIGN = ("Input ", "should ", "Field required", "Extra inputs", "Value error", "valid ", "unable")
JUNK: list[Any] = [
    -(10**9), 10**9, 10**30, 0.5, float("inf"), float("nan"), True, "", "x y", "1", [], ["x"], {},
    {"x": 1}, datetime.date(2026, 1, 1),
]  # fmt: skip


def places(document: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Of every value in a document, tables and lists included."""
    if at:
        yield at
    if isinstance(document, dict):
        for key, value in document.items():
            yield from places(value, (*at, key))
    elif isinstance(document, list):
        for index, value in enumerate(document):
            yield from places(value, (*at, index))


def replaced(document: Any, at: tuple[str | int, ...], value: Any) -> Any:
    if not at:
        return value
    changed = copy.copy(document)
    changed[at[0]] = replaced(document[at[0]], at[1:], value)
    return changed


@pytest.mark.parametrize(
    ("file", "model"),
    [
        ("targets/intel.toml", Target),
        ("targets/arm64.toml", Target),
        ("targets/raspberry-pi-4.toml", Target),
        ("calib/default.toml", Recipe),
        ("calib/accurate.toml", Recipe),
    ],
)
def test_every_wrong_value_is_explained_in_our_words(file: str, model: type[BaseModel]) -> None:
    folder, _, name = file.partition("/")
    document = tomllib.loads((data_dir(folder) / name).read_text())
    refused = 0
    for at in places(document):
        for value in JUNK:
            try:
                validate(model, replaced(document, at, value), where="mine.toml", kind="file")
            except BadInputError as error:
                refused += 1
                text = error.paragraph()
                assert "mine.toml" in text
                assert str(at[0]) in text or "The file is wrong" in text
                assert not [word for word in FOREIGN if word in text.replace("Valid here", "")], (
                    text
                )
    assert refused > 5 * len(list(places(document)))
