"""Profiles of a real library: complete, repeatable, and in agreement with the prototype."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from mfn_compile.arm.firmware.facts import Variant
from mfn_compile.device.board import Core, cores, find_core
from mfn_compile.device.kernels import calls_of, macs_of
from mfn_compile.device.mca import find_mca
from mfn_compile.device.profile import Profile, best_variant, profile
from mfn_compile.device.runner import build_inference, open_bundle
from mfn_compile.device.symbols import Symbol, Symbols, read_symbols
from mfn_compile.errors import BadInputError, DeviceError, ExitCode
from tests.arm.firmware import stub

PAIRS: list[tuple[str, Variant]] = [
    ("cortex-a53", "neon"),
    ("cortex-a55", "neon"),
    ("cortex-a55", "dotprod"),
    ("cortex-a72", "neon"),
    ("cortex-a76", "neon"),
    ("cortex-a76", "dotprod"),
]


def _profile(bundle: Path, core: Core, variant: Variant, cache: Path | None = None) -> Profile:
    if core.model.startswith("mca"):
        try:
            find_mca()
        except DeviceError as error:
            pytest.skip(str(error))
    return profile(bundle, core, variant, cache=cache)


@pytest.mark.parametrize(("name", "variant"), PAIRS)
def test_a_profile_is_complete(bundle: Path, name: str, variant: Variant) -> None:
    core = find_core(name)
    found = _profile(bundle, core, variant)
    assert (found.core, found.variant) == (name, variant)
    for total, key in (
        (found.cycles, "cycles"),
        (found.instructions, "instructions"),
        (found.l1_misses, "l1_misses"),
        (found.l2_misses, "l2_misses"),
        (1, "share"),
    ):
        assert sum(getattr(row, key) for row in found.kernels) == pytest.approx(total)
    ours = [row for row in found.kernels if row.in_library]
    assert sum(row.cycles for row in ours) == pytest.approx(found.cycles, rel=0.05)
    assert found.macs == sum(row.macs or 0 for row in ours) > 0
    kernels = [row for row in ours if row.macs]
    assert {row.kernel.partition("_")[0] for row in kernels} >= {"gemm", "depthwise"}
    for row in kernels:
        assert row.calls >= row.layers >= 1
        assert row.code_bytes > 0
        assert row.of_peak is not None
        assert 0 < row.of_peak < 1
        assert row.bound == ("memory" if row.memory_cycles > row.cycles else "compute")
    assert [row.cycles for row in found.kernels] == sorted(
        (row.cycles for row in found.kernels), reverse=True
    )


def test_two_runs_agree_and_the_second_needs_no_model(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = find_core("cortex-a55")
    first = profile(bundle, core, "dotprod", cache=tmp_path)

    def refuse(*_: object) -> list[float]:
        raise AssertionError("the cycles are known")

    monkeypatch.setattr("mfn_compile.device.inorder.InOrder.cycles", refuse)
    second = profile(bundle / "lib/libmfn.a", core, "dotprod", cache=tmp_path)
    assert second.cycles == pytest.approx(first.cycles, rel=0.005)
    assert second.instructions == pytest.approx(first.instructions, rel=0.005)
    assert [row.kernel for row in second.kernels[:3]] == [row.kernel for row in first.kernels[:3]]


@pytest.mark.parametrize(("name", "variant"), PAIRS)
def test_the_prototype_agrees(
    bundle: Path, prototype: Path, tmp_path: Path, name: str, variant: Variant
) -> None:
    core = find_core(name)
    found = _profile(bundle, core, variant)
    files = open_bundle(bundle)
    program = build_inference(files, variant, tmp_path)
    plugin = f"{prototype / 'bbcount.so'},out={tmp_path / 'run'}"
    stub.succeed("qemu-aarch64", "-plugin", plugin, "-cpu", core.qemu, program, files.image)
    mca = find_mca().path
    environment = {
        **os.environ,
        "LLVM_MCA": mca,
        "LLVM_MC": stub.tool(Path(mca).name.replace("mca", "mc")),
        "VCACHE": str(tmp_path / "cache.json"),
    }
    python = shutil.which("python3") or "python3"
    command = (python, prototype / "vcycles.py", tmp_path / "run.0", "--cpu", name)
    printed = stub.succeed(*command, env=environment)
    match = re.search(rf"{name}\s+([\d.]+) Mcyc", printed)
    assert match is not None
    assert found.cycles / 1e6 == pytest.approx(float(match[1]), rel=0.03, abs=0.001)


def test_a_core_without_dot_products(bundle: Path) -> None:
    with pytest.raises(BadInputError, match="no dot product"):
        profile(bundle, find_core("cortex-a53"), "dotprod")


def test_an_unknown_core_names_the_known() -> None:
    with pytest.raises(BadInputError, match=r"cortex-a53.*neoverse-n1") as caught:
        find_core("cortex-x4")
    assert caught.value.exit_code is ExitCode.BAD_INPUT
    with pytest.raises(BadInputError, match=r"Did you mean 'cortex-a76'"):
        find_core("cortex-a78")


def test_the_table_of_cores() -> None:
    known = {core.name for core in cores()}
    assert known >= {name for name, _ in PAIRS} | {"neoverse-n1", "neoverse-n2"}
    for core in cores():
        assert core.l1.bytes % (64 * core.l1.ways) == core.l2.bytes % (64 * core.l2.ways) == 0
        assert core.peak("neon") == 8


@pytest.mark.parametrize(
    ("kernel", "macs"),
    [
        ("gemm_196x256x128_i8_prelu", 196 * 256 * 128),
        ("gemm_49x128x512_single_i8_add", 49 * 128 * 512),
        ("gemm_784x128x64_single_in14_i8_add", 784 * 128 * 64),
        ("depthwise_28x28x128_k3x3_s1x1_p1_1_1_1_in7_r5x4_q4_i8", 28 * 28 * 128 * 9),
        ("depthwise_28x28x128_k3x3_s1x1_p1_1_1_1_i8_prelu", 28 * 28 * 128 * 9),
        ("depthwise_28x28x256_k3x3_s2x2_p1_1_1_1_i8_prelu", 14 * 14 * 256 * 9),
        ("depthwise_7x6x512_k7x6_s1x1_p0_0_0_0_i8", 512 * 42),
        ("float_dense_112x112x3x64_k3x3_s2x2_p1_1_1_1", 56 * 56 * 64 * 3 * 9),
        ("float_depthwise_8x8x16x16_k3x3_s1x1_p0_0_0_0", 6 * 6 * 16 * 9),
        ("patches_112x112x3of3_k3x3_s2x2_p1_1_1_1", None),
        ("input_12544_012_int8", None),
        ("depthwise_8x8x16_k3x3_s1x1_p10101010_i8", None),
        ("memcpy", None),
    ],
)
def test_multiplications_by_name(kernel: str, macs: int | None) -> None:
    assert macs_of(kernel) == macs


def test_calls_a_layer_by_name() -> None:
    names = ("gemm_784x128x64_in14_i8", "patches_8x8x3of3_k3x3_s2x2_p1_1_1_1_in7_r4x4", "input_9")
    assert [calls_of(name) for name in names] == [14, 7, 1]


def test_addresses_find_their_functions(tmp_path: Path) -> None:
    symbols = Symbols([Symbol("b", 100, 20), Symbol("a", 100, 20), Symbol("c", 200, 0)])
    found = [symbols.at(address).name for address in (0, 99, 100, 119, 120, 200, 5000)]
    assert found == ["unknown", "unknown", "b", "b", "unknown", "c", "c"]
    (tmp_path / "none").write_bytes(b"\x7fELF")
    with pytest.raises(DeviceError, match="symbols"):
        read_symbols(tmp_path / "none")


def test_the_best_variant_is_what_bundle_and_core_have(bundle: Path) -> None:
    found = {core.name: best_variant(bundle, core) for core in cores()}
    assert found["cortex-a72"] == "neon"
    assert found["cortex-a76"] == found["neoverse-n2"] == "dotprod"  # the bundle has no i8mm
    assert find_core("neoverse-n2").peak("i8mm") == 2 * find_core("neoverse-n2").peak("dotprod")
    with pytest.raises(BadInputError, match="no int8 matrix product"):
        find_core("cortex-a76").peak("i8mm")
