"""Shipped winners: round trip, what lookup promises, files that came from anyone."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfn_compile.records import SCHEMA, Entry, Records, RecordsError
from mfn_compile.tune.engine import tune
from mfn_compile.tune.shipping import records_of
from tests.tune.synthetic import measure, network

SIZES = st.fixed_dictionaries({"rows": st.integers(1, 4096), "columns": st.integers(1, 4096)})


def entry(sizes: dict[str, int], stride: int = 1, knob: int = 0, family: str = "gemm") -> Entry:
    return Entry(
        family=family,
        kernel=f"{family}_{sizes}_{stride}",
        sizes=sizes,
        attributes={"stride": stride, "relu": True},
        knobs={"tile": knob},
        cycles=1.5,
        first_cycles=2.0,
        trial=1,
    )


def records(*entries: Entry) -> Records:
    return Records(
        schema=SCHEMA,
        cpu="a72",
        isa="neon",
        device="virtual:a72",
        seed=0,
        version="1",
        entries=entries,
    )


def unique(sizes: list[dict[str, int]]) -> list[dict[str, int]]:
    return list({json.dumps(s, sort_keys=True): s for s in sizes}.values())


@given(st.lists(SIZES, min_size=1, max_size=12).map(unique), SIZES)
def test_nearest_is_nearest_and_exact_is_exact(
    known: list[dict[str, int]], wanted: dict[str, int]
) -> None:
    held = records(
        *(entry(sizes, knob=i) for i, sizes in enumerate(known)),
        entry(wanted, stride=2, knob=-1),
        entry(wanted, family="other", knob=-2),
    )
    found = held.lookup("gemm", wanted, {"relu": True, "stride": 1})
    assert found is not None
    distances = [
        math.hypot(*(math.log2(sizes[name] / wanted[name]) for name in wanted)) for sizes in known
    ]
    # The entry of the same sizes differs in an attribute, which counts for one.
    assert found.distance == pytest.approx(min(*distances, 1.0), abs=1e-9)
    assert found.exact == (wanted in known) == (found.distance == 0)
    if min(distances) < 1:
        assert distances[int(found.entry.knobs["tile"])] == pytest.approx(min(distances), abs=1e-9)


def test_lookup_passes_over_what_does_not_fit() -> None:
    near, far = {"rows": 64, "columns": 64}, {"rows": 512, "columns": 64}
    held = records(entry(near, knob=5), entry(far, knob=3))
    attributes = {"stride": 1, "relu": True}
    found = held.lookup("gemm", near, attributes, accept=lambda knobs: knobs["tile"] != 5)
    assert found is not None
    assert (found.exact, found.entry.knobs, found.distance) == (False, {"tile": 3}, 3.0)
    assert held.lookup("gemm", near, attributes, accept=lambda knobs: False) is None
    assert held.lookup("gemm", {"rows": 64}, attributes) is None
    assert held.lookup("depthwise", near, attributes) is None


def test_attributes_that_differ_are_never_exact() -> None:
    sizes = {"rows": 64, "columns": 64}
    held = records(entry(sizes, knob=5))
    other = held.lookup("gemm", sizes, {"stride": True, "relu": True})
    none = held.lookup("gemm", sizes)
    assert other is not None
    assert none is not None
    assert (other.exact, other.distance) == (False, 1.0)
    assert (none.exact, none.distance) == (False, 2.0)


def test_a_tuning_ships_and_comes_back(tmp_path: Path) -> None:
    tasks = network()
    result = tune(tasks, measure, tmp_path / "run", trials=30, seed=9, target="t")
    made = records_of(tasks, result, cpu="cortex-a72", isa="neon", device="pi4", seed=9)
    made.save(tmp_path / "records.json")
    text = (tmp_path / "records.json").read_text()
    assert Records.load(tmp_path / "records.json") == made
    assert text.count("\n") == 7 + len(tasks) + 3
    for task, winner in zip(tasks, result.kernels, strict=True):
        found = made.lookup(task.family, task.sizes, task.attributes)
        assert found is not None
        assert found.exact
        assert (found.entry.kernel, found.entry.knobs) == (task.key, winner.knobs)
    shuffled = made.model_copy(update={"entries": made.entries[::-1]})
    shuffled.save(tmp_path / "records.json")
    assert (tmp_path / "records.json").read_text() == text


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "records.json"),
        ("[" * 100_000, "records.json"),
        ("[]", "records.json"),
        ('{"schema": "mfn-compile/records/2"}', "records.json"),
        ("x" * ((4 << 20) + 1), "larger than"),
        ("\x00", "records.json"),
    ],
)
def test_files_that_are_no_records(tmp_path: Path, text: str, where: str) -> None:
    path = tmp_path / "records.json"
    path.write_text(text)
    with pytest.raises(RecordsError, match=where):
        Records.load(path)
    with pytest.raises(RecordsError, match="cannot be read"):
        Records.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"cycles": 0}, "entries.0.cycles"),
        ({"cycles": float("nan")}, "entries.0.cycles"),
        ({"sizes": {"rows": 0}}, "entries.0"),
        ({"knobs": {"tile": [1]}}, "entries.0.knobs.tile"),
        ({"surplus": 1}, "entries.0.surplus"),
        ({"trial": "x"}, "entries.0.trial"),
    ],
)
def test_wrong_entries_are_located(tmp_path: Path, change: dict[str, object], where: str) -> None:
    path = tmp_path / "records.json"
    good = entry({"rows": 4}).model_dump()
    document = records(entry({"rows": 4})).model_dump(by_alias=True)
    path.write_text(json.dumps({**document, "entries": [{**good, **change}]}))
    with pytest.raises(RecordsError, match=where):
        Records.load(path)


def test_two_entries_of_one_shape(tmp_path: Path) -> None:
    path = tmp_path / "records.json"
    good = entry({"rows": 4}).model_dump()
    document = records(entry({"rows": 4})).model_dump(by_alias=True)
    path.write_text(json.dumps({**document, "entries": [good, good]}))
    with pytest.raises(RecordsError, match="two entries"):
        Records.load(path)
