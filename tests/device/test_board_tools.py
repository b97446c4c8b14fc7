"""Missing tools are told together, before any work."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from mfn_compile.device.spec import parse_virtual
from mfn_compile.device.tools import of_virtual, require_all
from mfn_compile.errors import DeviceError, ExitCode
from mfn_compile.target import load_target
from mfn_compile.tuning import TuneRequest, looks_of
from tests.cli.test_commands import mfn

ONE_COMMAND = "Install them: sudo apt install qemu-user gcc libc6-dev gcc-aarch64-linux-gnu llvm-19"


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without any tool."""
    if importlib.util.find_spec("ziglang") is not None:
        pytest.skip("zig compiles for AArch64 here")
    monkeypatch.setenv("PATH", str(tmp_path))


def refused(device: str, *, library: bool = True) -> DeviceError:
    with pytest.raises(DeviceError) as caught:
        require_all(of_virtual(parse_virtual(device), library=library))
    return caught.value


def test_all_that_a_core_needs_is_named_once(bare: None) -> None:
    error = refused("virtual:cortex-a72")
    assert error.exit_code == ExitCode.DEVICE
    assert error.what.startswith("4 tools")
    for tool in ("qemu-aarch64", "cc, gcc, clang", "compiler for AArch64", "llvm-mca"):
        assert error.why.count(tool) == 1
    assert error.hint.startswith(ONE_COMMAND)


def test_nothing_is_asked_for_that_is_not_needed(bare: None) -> None:
    assert "llvm-mca" not in str(refused("virtual:cortex-a53"))
    assert refused("virtual:cortex-a53", library=False).what.startswith("2 tools")


def test_one_missing_tool_speaks_for_itself(bare: None) -> None:
    looks = of_virtual(parse_virtual("virtual:cortex-a53"))[:1]
    with pytest.raises(DeviceError, match="needs QEMU's user mode"):
        require_all([*looks, *looks])
    require_all([])


def test_tuning_of_several_cores_asks_for_everything_at_once(bare: None) -> None:
    looks = looks_of(TuneRequest(10), load_target("arm64"))
    with pytest.raises(DeviceError, match="4 tools"):
        require_all(looks)
    boards = looks_of(TuneRequest(10, device="rpc://host:9190/key"), load_target("arm64"))
    with pytest.raises(DeviceError, match="C compiler for AArch64 is missing"):
        require_all(boards)


@pytest.mark.parametrize(
    "command",
    [
        ("--target", "arm64", "--device", "virtual:cortex-a72"),
        ("--target", "arm64", "--device", "none", "--tune", "5"),
        ("tune", "--target", "cortex-a76"),
    ],
)
def test_a_run_tells_it_before_it_reads_an_image(
    bare: None, checkpoint: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    absent = ("--images", tmp_path / "none", "--pairs", tmp_path / "none.csv")
    found = mfn(*command, "--checkpoint", checkpoint, *absent, "--out", tmp_path / "out")
    assert found.exit_code == ExitCode.DEVICE, found.output
    assert ONE_COMMAND in found.stderr
