"""Cycles are computed once and remembered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mfn_compile.device.board import find_core
from mfn_compile.device.costs import FILE, Costs, model_of
from mfn_compile.errors import DeviceError


@dataclass
class Counting:
    """A model that takes the length for the cycles and remembers what it was asked."""

    identity: str = "counting"
    asked: list[bytes] = field(default_factory=list)

    def cycles(self, codes: Sequence[bytes]) -> list[float]:
        self.asked += codes
        return [float(len(code)) for code in codes]


CODES = [b"abcd", b"efghijkl", b"abcd"]


def test_a_block_is_asked_for_once(tmp_path: Path) -> None:
    model = Counting()
    for _ in range(2):
        assert Costs(model, tmp_path).of(CODES) == {b"abcd": 4, b"efghijkl": 8}
    assert model.asked == [b"abcd", b"efghijkl"]
    Costs(model, tmp_path).of([*CODES, b"mnop"])
    assert model.asked[2:] == [b"mnop"]


def test_another_model_has_its_own_cycles(tmp_path: Path) -> None:
    Costs(Counting("one"), tmp_path).of(CODES)
    other = Counting("two")
    Costs(other, tmp_path).of(CODES)
    assert len(other.asked) == 2


def test_thousands_of_blocks(tmp_path: Path) -> None:
    codes = [index.to_bytes(4, "little") for index in range(2000)]
    model = Counting()
    for _ in range(2):
        assert len(Costs(model, tmp_path).of(codes)) == 2000
    assert len(model.asked) == 2000


def test_a_damaged_file_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database" * 1000)
    model = Counting()
    for _ in range(2):
        assert Costs(model, tmp_path).of(CODES)[b"abcd"] == 4
    assert len(model.asked) == 2


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match="MFN_CACHE_DIR"):
        Costs(Counting(), tmp_path / "file").of(CODES)


def test_every_core_has_its_model() -> None:
    assert model_of(find_core("cortex-a53")).identity == "in-order a53"
    assert model_of(find_core("cortex-a55")).identity == "in-order a55"
