"""The program that measures, as a program of this machine; the emulated one is tested elsewhere."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from mfn_compile.arm.firmware.linker import native_aarch64
from mfn_compile.device.real import programs
from mfn_compile.device.real.measure import Amount, measure_local
from mfn_compile.device.runner import open_bundle
from mfn_compile.errors import BadInputError, DeviceError, InternalCheckError
from mfn_compile.progress import SilentProgress
from tests.arm.firmware import stub

AMOUNT = Amount(rounds=2, warm_up=1, repeats=20)


def run(bundle: Path, amount: Amount = AMOUNT, seconds: float = 60.0, runner: tuple[str, ...] = ()):  # type: ignore[no-untyped-def]
    return measure_local(
        bundle,
        progress=SilentProgress(),
        seconds=seconds,
        amount=amount,
        runner=runner,
        compiler=("gcc",),
    )


def test_a_library_is_checked_and_timed_here(host_stub: Path) -> None:
    found = run(host_stub)
    assert (found.vectors, found.repeats) == (4, 40)
    assert found.variants == ("neon", "dotprod")
    assert found.affinity is not None
    assert found.boards[0].endswith("(this machine)")


def test_a_budget_cuts_a_round_but_not_below_five(host_stub: Path) -> None:
    found = run(host_stub, Amount(rounds=1, warm_up=0, repeats=1000, budget_ms=0))
    assert found.repeats == 5


def test_a_program_that_does_not_end_is_stopped(host_stub: Path) -> None:
    with pytest.raises(DeviceError, match="did not answer in time while it did the job round-0"):
        run(host_stub, Amount(rounds=1, warm_up=2_000_000_000, repeats=1), seconds=3)


def test_one_wrong_bit_is_a_failed_check(host_stub: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(host_stub, tmp_path / "bundle")
    vector = bundle / "golden/001.f32"
    vector.write_bytes(bytes([vector.read_bytes()[0] ^ 1]) + vector.read_bytes()[1:])
    with pytest.raises(InternalCheckError, match="golden vector 1") as caught:
        run(bundle)
    assert caught.value.exit_code == 7


def test_golden_vectors_that_are_cut_short_are_no_answer(host_stub: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(host_stub, tmp_path / "bundle")
    (bundle / "golden/003.rgb").write_bytes(b"short")
    with pytest.raises(DeviceError, match="golden vectors did not arrive whole"):
        run(bundle)
    (bundle / "golden/003.f32").unlink()
    with pytest.raises(BadInputError, match=r"003\.f32"):
        run(bundle)


def test_a_runner_that_fails_is_named(host_stub: Path, tmp_path: Path) -> None:
    runner = tmp_path / "runner"
    runner.write_text("#!/bin/sh\necho no such core >&2\nexit 9\n")
    runner.chmod(0o755)
    with pytest.raises(DeviceError, match="No such core"):
        run(host_stub, runner=(str(runner),))
    runner.write_text("#!/bin/sh\nkill -ILL $$\n")
    with pytest.raises(DeviceError, match="signal 4"):
        run(host_stub, runner=(str(runner),))


@pytest.mark.skipif(native_aarch64(), reason="this machine is a board")
def test_another_machine_is_no_board(host_stub: Path) -> None:
    with pytest.raises(DeviceError, match="This machine is no board"):
        measure_local(host_stub, progress=SilentProgress())


def test_boards_need_a_c_library_of_2012_and_nothing_else(tmp_path: Path) -> None:
    opened = open_bundle(stub.build(tmp_path / "arm"))
    out = tmp_path / "board.so"
    programs.build_shared((stub.cross(),), opened.header, opened.library, out)
    readelf = stub.tool("readelf")
    text = stub.succeed(readelf, "-W", "-d", "--dyn-syms", out)
    versions = {tuple(map(int, v.split("."))) for v in re.findall(r"@GLIBC_([\d.]+)", text)}
    assert versions
    assert max(versions) <= (2, 17)
    assert re.findall(r"NEEDED.*\[(.*)\]", text) == ["libc.so.6"]
    defined = [line for line in text.splitlines() if "GLOBAL" in line and " UND " not in line]
    assert len(defined) == 1
    assert defined[0].endswith("__tvm_ffi_mfn_board")
