"""The tables of a benchmark: ties, losing rows, rows without a number, strict JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from mfn_compile.bench.results import Bench
from mfn_compile.bench.table import markdown, verdict
from tests.bench.bench_sample import SAMPLE, WRONG

GOLDEN = Path(__file__).parent / "golden" / "bench.md"


def test_the_markdown_is_the_golden_one() -> None:
    assert markdown(SAMPLE) == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("ratio", "says"),
    [
        (1.10, "1.10 (tie)"),
        (0.90, "0.90 (tie)"),
        (1.149, "1.15 (tie)"),
        (1.15, "1.15 (slower than ours)"),
        (0.86, "0.86 (faster than ours)"),
    ],
)
def test_small_gaps_are_ties(ratio: float, says: str) -> None:
    assert verdict(ratio) == says


def test_a_peer_that_beats_ours_stands_first() -> None:
    lines = [line for line in markdown(SAMPLE).splitlines() if line.startswith("| ncnn | int8")]
    assert "faster than ours" in lines[0]


def test_a_row_without_a_number_has_its_reason() -> None:
    text = markdown(SAMPLE)
    assert f"- mnn f32 (cortex-a72, this machine): {WRONG}" in text
    row = next(line for line in text.splitlines() if line.startswith("| mnn | f32 |"))
    assert not any(character.isdigit() for character in row.removeprefix("| mnn | f32"))


def test_json_comes_back_as_it_was() -> None:
    text = SAMPLE.model_dump_json(by_alias=True, exclude_none=True)
    assert Bench.model_validate_json(text) == SAMPLE
    assert json.loads(text)["schema"] == "mfn-compile/bench/1"


@pytest.mark.parametrize(
    "change",
    [{"extra": 1}, {"schema": "mfn-compile/bench/2"}, {"counts": [{"engine": "x", "cycles": -1}]}],
)
def test_other_json_is_refused(change: dict[str, object]) -> None:
    document = json.loads(SAMPLE.model_dump_json(by_alias=True)) | change
    with pytest.raises(ValidationError):
        Bench.model_validate(document)
