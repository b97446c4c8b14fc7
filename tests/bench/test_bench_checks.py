"""What `bench` refuses before it starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfn_compile.bench.checks import (
    QDQ,
    check_bundles,
    check_devices,
    check_out,
    parse_devices,
)
from mfn_compile.device.runner import HEADER, IMAGE, LIBRARY
from mfn_compile.errors import BadInputError, DeviceError, UsageError
from tests.cli.test_commands import mfn


def test_devices_are_virtual_ones_or_this_machine() -> None:
    assert parse_devices(["virtual:cortex-a53", "host"])[1]
    assert not parse_devices(["virtual:cortex-a53"])[1]
    with pytest.raises(UsageError, match="no device to compare engines on"):
        parse_devices(["rpc://board:9090/key"])


def test_tables_go_to_files_of_two_kinds(tmp_path: Path) -> None:
    for fine in (None, tmp_path / "t.md", tmp_path / "t.json"):
        check_out(fine)
    with pytest.raises(UsageError, match=r"neither a \.md nor a \.json"):
        check_out(tmp_path / "table.html")
    (tmp_path / "folder.md").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        check_out(tmp_path / "folder.md")


def test_bundles_are_whole(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no bundle with a library"):
        check_bundles([tmp_path])
    for name in (LIBRARY, HEADER, IMAGE):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(BadInputError, match=r"model_int8_qdq\.onnx is missing"):
        check_bundles([tmp_path])
    (tmp_path / QDQ).parent.mkdir()
    (tmp_path / QDQ).write_bytes(b"")
    check_bundles([tmp_path])


def test_this_machine_is_compared_with_ours(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no --bundle"):
        check_devices((), True, (), known=False)
    check_devices((), True, (tmp_path,), known=False)


def test_tools_are_looked_for_unless_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    devices, _ = parse_devices(["virtual:cortex-a53", "virtual:cortex-a72"])
    with pytest.raises(DeviceError, match="3 tools"):
        check_devices(devices, False, (), known=False)
    check_devices(devices, False, (), known=True)


def test_the_command_refuses_before_it_reads_the_checkpoint(tmp_path: Path) -> None:
    absent = ("--checkpoint", tmp_path / "none.safetensors", "--peers", "ncnn")
    for code, says, options in (
        (2, "neither a .md nor a .json", ("--device", "virtual:cortex-a53", "--out", "t.txt")),
        (2, "no --bundle", ("--device", "host")),
        (3, "no bundle", ("--device", "virtual:cortex-a53", "--bundle", tmp_path)),
    ):
        found = mfn("bench", *options, *absent)
        assert found.exit_code == code, found.output
        assert says in found.stderr
