"""Which knobs a kernel gets: given, tuned, of the nearest, default; and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfn_compile.arm.kernels.knobs import DEFAULT, Key, Value
from mfn_compile.arm.schedules import Schedules, load_folder, schedules_for, shipped
from mfn_compile.errors import BadInputError
from mfn_compile.records import SCHEMA, Entry, Records

SIZES = {"m": 784, "n": 128, "k": 64, "rows": 4}
ATTRIBUTES: dict[str, Value] = {"paired": True, "epilogue": "i8"}
KEY = Key("gemm", "gemm_784x128x64_i8", SIZES, ATTRIBUTES)


def records(**knobs: Value) -> Records:
    entry = Entry(
        family="gemm",
        kernel=KEY.name,
        sizes=SIZES,
        attributes=ATTRIBUTES,
        knobs=knobs,
        cycles=5.0,
        first_cycles=8.0,
        trial=3,
    )
    return Records(
        schema=SCHEMA,
        cpu="cortex-a53",
        isa="neon",
        seed=0,
        version="1",
        device="virtual:cortex-a53",
        entries=(entry,),
    )


def test_tuned_nearest_default_and_given() -> None:
    held = Schedules("cortex-a53", "neon", records(loads="general", gap=4))
    exact = held.of(KEY)
    assert (exact.source, exact.tuned_for, exact.cycles) == ("tuned", KEY.name, 5.0)
    assert (exact.knobs.loads, exact.knobs.gap, exact.knobs.late) == ("general", 4, DEFAULT.late)
    other = Key("gemm", "gemm_49x128x64_i8", {**SIZES, "m": 49}, ATTRIBUTES)
    near = held.of(other)
    assert (near.source, near.tuned_for, near.cycles) == ("nearest", KEY.name, None)
    assert near.knobs == exact.knobs
    window = Key("depthwise", "depthwise_7x7x8", {"height": 7, "width": 7, "channels": 8}, {})
    assert (held.of(window).source, held.of(window).knobs) == ("default", DEFAULT)
    given = Schedules("cortex-a53", "neon", held.records, {KEY.name: {"loads": "halves"}})
    assert given.of(KEY).knobs.loads == "halves"


@pytest.mark.parametrize("knobs", [{"loads": "sideways"}, {"warp": 3}, {"gap": True}])
def test_knobs_of_another_version_are_passed_over(knobs: dict[str, Value]) -> None:
    assert Schedules("cortex-a53", "neon", records(**knobs)).of(KEY).source == "default"


def test_a_folder_without_records_or_with_those_of_another_core(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no records"):
        load_folder(tmp_path, ["cortex-a53"])
    records(loads="whole").save(tmp_path / "cortex-a72.json")
    with pytest.raises(BadInputError, match="cortex-a53, not of cortex-a72"):
        load_folder(tmp_path, ["cortex-a72"])
    assert schedules_for("cortex-x1", "neon", tmp_path) == shipped("cortex-x1", "neon")


@pytest.mark.parametrize(
    "cpu", ["cortex-a53", "cortex-a55", "cortex-a72", "cortex-a76", "neoverse-n1"]
)
def test_what_ships_fits_todays_knobs(cpu: str) -> None:
    isa = "neon" if cpu in ("cortex-a53", "cortex-a72") else "dotprod"
    held = shipped(cpu, isa)
    assert held.records is not None
    assert held.records.isa == isa
    for entry in held.records.entries:
        assert entry.cycles <= entry.first_cycles
        key = Key(entry.family, entry.kernel, entry.sizes, entry.attributes)
        if entry.family == "block":
            rows = entry.knobs["rows"]
            assert isinstance(rows, int)
            assert held.rows(key, (rows,), -1) == rows
        else:
            found = held.of(key)
            assert (found.source, found.tuned_for) == ("tuned", entry.kernel)
