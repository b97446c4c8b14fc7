"""llvm-mca: what is asked of it, what comes back, and what is said where it is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfn_compile.device import mca
from mfn_compile.device.mca import Mca, Tool, find_mca
from mfn_compile.errors import DeviceError, ExitCode
from tests.device.programs import machine_code


@pytest.fixture(scope="module")
def tool() -> Tool:
    try:
        return find_mca()
    except DeviceError as error:
        pytest.skip(str(error))


def _fake(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_the_newest_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, version in (("llvm-mca", "14.0.6"), ("llvm-mca-19", "19.1.7"), ("llvm-mca-20", "20")):
        _fake(tmp_path, name, f"echo '  LLVM version {version}'")
    _fake(tmp_path, "llvm-mca-extra", "echo 'LLVM version 99.0'")
    _fake(tmp_path, "llvm-mca-98", "exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin:{tmp_path}/none")
    found = find_mca()
    assert found.major >= 20


@pytest.mark.parametrize("version", ["", "14.0.6"])
def test_without_it_the_error_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    if version:
        _fake(tmp_path, "llvm-mca", f"echo 'LLVM version {version}'")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="sudo apt install llvm-") as caught:
        find_mca()
    assert caught.value.exit_code is ExitCode.DEVICE
    assert version in str(caught.value)


def test_every_block_gets_its_own_cycles(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mca, "BATCH", 3)
    codes = [machine_code(tmp_path, "add x0, x0, #1\n" * count) for count in range(1, 9)]
    found = Mca("neoverse-n1", 4, tool).cycles(codes)
    assert [round(one) for one in found] == list(range(1, 9))


def test_code_of_all_kinds_is_taken(tool: Tool, tmp_path: Path) -> None:
    text = """
    top: adrp x0, top
    ldr x1, top
    tbz w1, #3, top
    cbnz x2, top
    b.ne top
    bl top
    .inst 0
    .inst 0xffffffff
    hint #112
    mrs x3, tpidr_el0
    movi v0.16b, #255
    fmov s1, #1.0
    ld1 {v0.s}[1], [x2], #4
    ldr q1, [x3, #16]!
    sdot v2.4s, v3.16b, v4.4b[1]
    ret
    """
    (found,) = Mca("cortex-a57", None, tool).cycles([machine_code(tmp_path, text)])
    assert 5 < found < 100


def test_an_address_does_not_wait_for_the_loaded_value(tool: Tool, tmp_path: Path) -> None:
    stepping = machine_code(tmp_path, "ldr q0, [x0], #16")
    (found,) = Mca("neoverse-n1", 4, tool).cycles([stepping])
    assert found < 1.5


def test_a_wider_dispatch_is_faster(tool: Tool, tmp_path: Path) -> None:
    code = machine_code(tmp_path, "\n".join(f"movi v{i}.16b, #0" for i in range(16)) + "\nnop" * 16)
    narrow, wide = (Mca("neoverse-n1", width, tool).cycles([code])[0] for width in (1, 4))
    assert wide < narrow


@pytest.mark.parametrize("script", ["echo broken; exit 1", "echo '{}'", "echo no JSON"])
def test_an_llvm_mca_that_fails_is_an_error(tmp_path: Path, script: str) -> None:
    _fake(tmp_path, "llvm-mca", script)
    model = Mca("neoverse-n1", 4, Tool(str(tmp_path / "llvm-mca"), "19.0"))
    with pytest.raises(DeviceError, match="llvm-mca failed"):
        model.cycles([b"\x1f\x20\x03\xd5"])
