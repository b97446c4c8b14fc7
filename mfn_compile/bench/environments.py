"""Where a peer's Python packages are: on this machine, and in the virtual board's root."""

from __future__ import annotations

import shutil
import sys
import venv
from pathlib import Path

from filelock import FileLock

from mfn_compile.arm.firmware.process import run_tool
from mfn_compile.bench.peers import Peer
from mfn_compile.device.emulator import folder
from mfn_compile.device.sysroot import require_sysroot, site_folder
from mfn_compile.errors import DeviceError
from mfn_compile.files import write_whole

INSTALL_SECONDS = 1800.0
PINS = "mfn-requirements.txt"  # what an environment was made with


def bench_folder() -> Path:
    """Where models, counts and results of benchmarks are kept."""
    return folder() / "bench"


def host_python(peer: Peer, *, install: bool = True) -> str:
    """The Python that has the peer's packages for this machine, made at the first call.

    Args:
        peer: whose.
        install: False makes nothing that is not there.

    Raises:
        DeviceError: the packages are not there, or cannot be installed.
    """
    if not peer.host:
        return sys.executable
    place = folder() / "hosts" / peer.name
    python, pins = place / "bin" / "python", "\n".join(peer.host) + "\n"
    if _pins(place) == pins and python.exists():
        return str(python)
    if not install:
        raise DeviceError(
            f"The environment of {peer.title} is not installed",
            where=str(place),
            hint="Run once without --no-install; it fetches packages from the package index",
        )
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{place}.lock"):
        if _pins(place) != pins:
            _install(peer, place, python)
            write_whole(place / PINS, pins.encode())
    return str(python)


def _pins(place: Path) -> str:
    path = place / PINS
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _install(peer: Peer, place: Path, python: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    venv.create(place, with_pip=True)
    done = run_tool(
        [str(python), "-m", "pip", "install", "--quiet", *peer.host], timeout=INSTALL_SECONDS
    )
    if done.code != 0:
        raise DeviceError(
            f"The packages of {peer.title} cannot be installed",
            where=" ".join(peer.host),
            why=done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "pip failed",
            hint="Check the connection to the package index, or leave the peer out of --peers",
        )


def site_of(peer: Peer) -> Path:
    """The peer's AArch64 wheels, in exactly the versions of peers.toml.

    Raises:
        DeviceError: there is no root, or the wheels are missing or others.
    """
    site = site_folder(require_sysroot(peer.name), peer.name)
    for pin in peer.site:
        name, _, version = pin.partition("==")
        info = f"{name.replace('-', '_').replace('.', '_')}-{version}.dist-info"
        if not (site / info).is_dir():
            raise DeviceError(
                f"The AArch64 root has no {pin}",
                where=str(site),
                hint=f"Install it there: {' '.join(peer.site)}",
            )
    return site


def runtime_bytes(peer: Peer, site: Path) -> int:
    """Size of the shared libraries that the peer's inference needs, of the AArch64 wheels."""
    found = {path.resolve() for pattern in peer.libraries for path in site.glob(pattern)}
    return sum(path.stat().st_size for path in found if path.is_file())
