"""The AArch64 root: what its programs see of the core that they run on."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfn_compile.arm.firmware.process import run_tool
from mfn_compile.arm.firmware.proof import find_emulator
from mfn_compile.device.board import cores, find_core
from mfn_compile.device.sysroot import (
    VARIABLE,
    core_view,
    find_sysroot,
    python_command,
    require_sysroot,
)
from mfn_compile.errors import DeviceError

needs_root = pytest.mark.skipif(
    find_sysroot() is None or find_emulator() is None,
    reason=f"no AArch64 root ({VARIABLE}), or no qemu-aarch64",
)
SEEN = """
import ctypes, os, platform, sys
print(platform.machine(), os.cpu_count(), sys.version_info[:2])
print(open('/proc/cpuinfo').read())
print(open('/sys/devices/system/cpu/cpu0/regs/identification/midr_el1').read())
print(ctypes.CDLL(None).getauxval(16) >> 20 & 1)
"""


@needs_root
@pytest.mark.parametrize("name", [core.name for core in cores()])
def test_a_program_sees_the_core(name: str, tmp_path: Path) -> None:
    core = find_core(name)
    view = core_view(require_sysroot(), core, tmp_path)
    program, options = python_command(view, "none")
    emulator = find_emulator()
    assert emulator is not None
    done = run_tool([emulator, "-cpu", core.qemu, *options, program, "-c", SEEN], timeout=120)
    assert done.code == 0, done.stderr
    assert done.stdout.startswith("aarch64 1 (3, 11)")
    assert f"CPU part\t: {core.part:#x}" in done.stdout
    assert f"{core.part:03x}{core.stepping[1]:x}\n" in done.stdout, "midr_el1"
    dotprod = core.macs.dotprod is not None
    assert ("asimddp" in done.stdout) == dotprod
    assert done.stdout.rstrip().endswith(str(int(dotprod))), "HWCAP_ASIMDDP"


def test_a_root_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(DeviceError, match="setup_virtual_board") as caught:
        require_sysroot()
    assert str(tmp_path) in str(caught.value)


@needs_root
def test_wheels_that_are_missing_are_named() -> None:
    with pytest.raises(DeviceError, match="wheels of nobody"):
        require_sysroot("nobody")
