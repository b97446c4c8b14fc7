"""What `bench` looks at before its hours of work begin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mfn_compile.device.runner import open_bundle
from mfn_compile.device.spec import VIRTUAL, VirtualDevice, parse_virtual
from mfn_compile.device.tools import of_virtual, require_all
from mfn_compile.errors import BadInputError, UsageError

HOST = "host"
QDQ = Path("onnx") / "model_int8_qdq.onnx"
TABLES = (".md", ".json")


def parse_devices(names: Sequence[str]) -> tuple[tuple[VirtualDevice, ...], bool]:
    """Virtual devices, and whether this machine is one of them.

    Raises:
        UsageError: a name is neither virtual:NAME nor host.
        BadInputError: there is no such core or board.
    """
    virtual = []
    for name in names:
        if name.startswith(VIRTUAL):
            virtual.append(parse_virtual(name))
        elif name != HOST:
            raise UsageError(
                f"{name!r} is no device to compare engines on",
                hint="Write virtual:CORE, virtual:BOARD or host",
            )
    return tuple(virtual), len(virtual) < len(names)


def check_out(out: Path | None) -> None:
    """That the tables can be written to a file.

    Raises:
        UsageError: it is a folder, or neither .md nor .json.
    """
    if out is None:
        return
    if out.suffix not in TABLES:
        raise UsageError(
            f"--out {out} is neither a .md nor a .json file",
            hint=f"Write --out {out.with_suffix('.md')}",
        )
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder", hint="Name a file in it")


def check_bundles(bundles: Sequence[Path]) -> None:
    """That all are bundles for ARM with their quantized network.

    Raises:
        BadInputError: one is not; it is named.
    """
    for bundle in bundles:
        open_bundle(bundle)
        if not (bundle / QDQ).is_file():
            raise BadInputError(
                "The bundle lacks its quantized network",
                where=str(bundle),
                why=f"{QDQ} is missing",
                hint="Give the whole folder that `mfn-compile --target arm64` wrote",
            )


def check_devices(
    devices: Sequence[VirtualDevice], native: bool, bundles: Sequence[Path], *, known: bool
) -> None:
    """That devices have what they need.

    Args:
        native: this machine is asked for.
        known: no peer runs.

    Raises:
        UsageError: times of this machine, which are told as ratios to ours, without ours.
        DeviceError: tools are missing; all of them are named.
    """
    if native and not bundles:
        raise UsageError(
            "--device host compares every engine with ours, and there is no --bundle",
            hint="Add --bundle FOLDER, or leave --device host out",
        )
    if bundles or not known:
        ours = bool(bundles)
        require_all(look for device in devices for look in of_virtual(device, library=ours))
