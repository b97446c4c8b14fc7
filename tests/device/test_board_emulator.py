"""QEMU and the plugin: what is missing is named, what is built is kept."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mfn_compile.device import emulator
from mfn_compile.errors import DeviceError
from tests.arm.firmware import stub


def _only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH."""
    place = folder / "bin"
    place.mkdir()
    monkeypatch.setenv("PATH", str(place))
    return place


def _script(place: Path, text: str) -> None:
    (place / "qemu-aarch64").write_text(f"#!/bin/sh\n{text}\n")
    (place / "qemu-aarch64").chmod(0o755)


def test_no_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _only(tmp_path, monkeypatch)
    with pytest.raises(DeviceError, match="sudo apt install qemu-user"):
        emulator.require_emulator()


def test_a_static_qemu_is_recognized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "qemu.c"
    source.write_text("int main(void) { return 0; }")
    program = tmp_path / "static"
    if stub.run(stub.tool("cc"), "-static", source, "-o", program).returncode:
        pytest.skip("this machine links no static programs")
    shutil.copy(program, _only(tmp_path, monkeypatch) / "qemu-aarch64")
    with pytest.raises(DeviceError, match=r"linked statically.*qemu-user"):
        emulator.require_emulator()


def test_a_qemu_without_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _script(_only(tmp_path, monkeypatch), "echo usage")
    with pytest.raises(DeviceError, match="without plugins"):
        emulator.require_emulator()


def test_a_qemu_that_is_too_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _script(_only(tmp_path, monkeypatch), "echo -plugin; echo qemu-aarch64 version 10.0.2")
    with pytest.raises(DeviceError, match=r"version 10\.0 is too new"):
        emulator.require_emulator()


def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _only(tmp_path, monkeypatch)
    with pytest.raises(DeviceError, match="sudo apt install gcc"):
        emulator.build_plugin()


def test_a_compiler_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MFN_CACHE_DIR", str(tmp_path / "cache"))
    place = _only(tmp_path, monkeypatch)
    (place / "cc").write_text("#!/bin/sh\necho no such header >&2\nexit 1\n")
    (place / "cc").chmod(0o755)
    with pytest.raises(DeviceError, match="No such header"):
        emulator.build_plugin()


def test_the_plugin_is_built_once(
    board: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MFN_CACHE_DIR", str(tmp_path))
    first = emulator.build_plugin()
    made = first.stat().st_mtime_ns
    assert emulator.build_plugin() == first
    assert first.stat().st_mtime_ns == made
    changed = tmp_path / "blocks.c"
    changed.write_text(emulator.SOURCE.read_text() + "\n")
    monkeypatch.setattr(emulator, "SOURCE", changed)
    assert emulator.build_plugin() != first


def test_the_plugin_compiles_without_warnings(board: None, tmp_path: Path) -> None:
    out = tmp_path / "blocks.so"
    stub.succeed("cc", *emulator.FLAGS, "-Werror", emulator.SOURCE, "-o", out)


def test_a_folder_that_cannot_be_made(
    board: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MFN_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(DeviceError, match="MFN_CACHE_DIR"):
        emulator.build_plugin()
