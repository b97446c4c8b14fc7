"""Targets and the TOML reading that recipes share."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from mfn_compile.errors import BadInputError
from mfn_compile.resources import data_dir
from mfn_compile.target import Target, Variant, has_vnni, list_targets, load_target
from mfn_compile.tomlfile import MAX_BYTES

INTEL = (data_dir("targets") / "intel.toml").read_text()


def test_every_shipped_target_loads_and_is_named_as_its_file() -> None:
    names = {target.name for target in list_targets()}
    assert names == {path.stem for path in data_dir("targets").glob("*.toml")}
    assert {"intel", "intel-vnni", "intel-avx2", "arm64"} <= names


@pytest.mark.parametrize(
    ("name", "flags", "fix"),
    [
        ("intel", {"avx512_vnni"}, "disable"),
        ("intel", {"avx_vnni"}, "disable"),
        ("intel", {"avx2"}, "enable"),
        ("intel-vnni", set(), "disable"),
        ("intel-avx2", {"avx512_vnni"}, "enable"),
    ],
)
def test_the_overflow_fix_follows_target_and_cpu(name: str, flags: set[str], fix: str) -> None:
    assert load_target(name).overflow_fix(frozenset(flags)) == fix


def test_vnni_by_linux_flag_names() -> None:
    assert has_vnni(frozenset({"avx512_vnni"}))
    assert not has_vnni(frozenset({"avx512f", "avx2"}))


def test_a_target_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(INTEL.replace('name = "intel"', 'name = "mine"'))
    target = load_target(path)
    assert target.name == "mine"
    assert target.digest() != load_target("intel").digest()
    assert Target.model_validate_json(target.to_json()) == target


def test_arm_demands_the_exact_grid_and_intel_does_not() -> None:
    assert load_target("arm64").quantization.grid == "exact"
    for name in ("intel", "intel-vnni", "intel-avx2"):
        assert load_target(name).quantization.grid == "free"


def test_boards_have_their_fastest_core_first_and_code_for_all() -> None:
    boards = {target.name: target for target in list_targets() if target.board is not None}
    assert {"raspberry-pi-5", "raspberry-pi-4", "rk3399", "rk3588", "uno-q"} <= set(boards)
    for target in boards.values():
        assert target.board is not None
        assert target.code is not None
        clocks = [entry.clock_ghz for entry in target.board.cores]
        assert clocks == sorted(clocks, reverse=True)
        assert target.code.variants[0].name == "neon"  # what every core of every board runs
        assert target.description.startswith(target.board.title)
        assert target.quantization.grid == "exact"


def broken(tmp_path: Path, text: str) -> str:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(BadInputError) as caught:
        load_target(path)
    assert caught.value.exit_code == 3
    assert "bad.toml" in str(caught.value)
    return str(caught.value)


def test_a_misspelt_key_is_answered_with_the_nearest(tmp_path: Path) -> None:
    text = broken(tmp_path, INTEL.replace("overflow_fix", "overflow_fxi"))
    assert "'quantization.overflow_fxi'" in text
    assert "Did you mean 'overflow_fix'" in text


def test_a_misspelt_table_is_answered_with_the_nearest(tmp_path: Path) -> None:
    assert "Did you mean 'runtime'" in broken(tmp_path, INTEL.replace("[runtime]", "[runtimes]"))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("threads = 1", "threads = 0", "'runtime.threads' *. It must be at least 1, and is 0."),
        ("threads = 1", "threads = 'one'", "*. It must be a whole number, and is 'one'."),
        ("threads = 1", "threads = 9999", "*. It must be at most 1024, and is 9999."),
        ("threads = 1", "threads = [1]", "*. It must be a whole number, and is a list of 1."),
        ('"auto"', '"always"', "'quantization.overflow_fix' *. It must be 'auto', *, and is 'al*"),
        ('"auto"', '"auto"\ngrid = "fine"', "'quantization.grid' *. It must be 'exact' or 'free',"),
        ("latency_ms = 18.0", "latency_ms = -1", "'budget.latency_ms' *. It must be more than 0.0"),
        ("latency_ms = 18.0", "latency_ms = inf", "*. It must be a finite number, and is inf."),
        ("latency_ms = 18.0", "", "lacks the key 'budget.latency_ms' *. Add it."),
        (
            '"auto"',
            '"auto"\n[board]',
            "lacks the key 'board.title' *. 2 problems in all. Add it",
        ),
        (
            '[quantization]\noverflow_fix = "auto"',
            "quantization = true",
            "*. It must be a table ",
        ),
        ('name = "intel"', "name = [", "not valid TOML"),
        ('name = "intel"', 'name = "../x"', "'name' *. It must be of the form ^[a-z0-9]"),
        ('name = "intel"', "name = 7", "'name' *. It must be text in quotes, and is 7."),
        ('backend = "openvino"', 'backend = "tvm"', "The target is wrong *. The tvm backend needs"),
    ],
)
def test_wrong_values_name_their_key_and_what_is_allowed(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    assert old in INTEL
    text = broken(tmp_path, INTEL.replace(old, new))
    parts = iter(says.split("*"))
    place = 0
    for part in parts:
        assert part in text[place:], text
        place = text.index(part, place) + len(part)
    for foreign in ("Input should", "Field required", "Extra inputs", "Value error", "type="):
        assert foreign not in text


def test_bounds_on_untrusted_toml(tmp_path: Path) -> None:
    assert "larger than" in broken(tmp_path, "#" * (MAX_BYTES + 1))
    nested = broken(tmp_path, "x = " + "[" * 20_000)
    assert "not valid TOML" in nested


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(BadInputError, match=r"Did you mean 'intel-vnni'") as caught:
        load_target("intel-vni")
    assert "arm64" in str(caught.value)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="cannot be read"):
        load_target(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("name", "cpu", "features", "why"),
    [
        ("i8mm", "cortex-a76", ("neon", "dotprod", "i8mm"), "cortex-a76 has no i8mm"),
        ("i8mm", "cortex-a72", ("neon", "dotprod", "i8mm"), "cortex-a72 has no dotprod"),
        ("i8mm", "neoverse-n2", ("neon", "i8mm"), "needs the features neon and dotprod and i8mm"),
        ("dotprod", "neoverse-n2", ("neon", "dotprod", "i8mm"), "must run without i8mm"),
        ("neon", "neoverse-n2", ("neon",), "every Armv8.0 core"),
    ],
)
def test_a_variant_that_promises_too_much(
    name: str, cpu: str, features: tuple[str, ...], why: str
) -> None:
    with pytest.raises(ValidationError, match=why):
        Variant.model_validate({"name": name, "cpu": cpu, "features": features})
