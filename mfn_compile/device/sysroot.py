"""An AArch64 root folder with a Python, and the machine that its programs believe to run on."""

from __future__ import annotations

import os
from pathlib import Path

from mfn_compile.device.board import Core
from mfn_compile.device.emulator import folder
from mfn_compile.errors import DeviceError

VARIABLE = "MFN_SYSROOT"
PYTHON = "usr/bin/python3.11"
SITES = "opt"  # folders of AArch64 wheels in the root: opt/site-NAME
INSTALL = "sudo tools/setup_virtual_board.sh"
KILOHERTZ = 1_800_000  # a frequency for programs that want to read one
OWN = ("proc", "sys")  # what a core's view of the root does not share with it
_OLD = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_NEW = f"{_OLD} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"


def sysroot_place() -> Path:
    """Where the root is, or would be."""
    named = os.environ.get(VARIABLE)
    return Path(named).absolute() if named else folder() / "sysroot"


def find_sysroot() -> Path | None:
    """The AArch64 root, None where there is none."""
    place = sysroot_place()
    return place if (place / PYTHON).is_file() else None


def require_sysroot(site: str | None = None) -> Path:
    """The AArch64 root, with the wheels of `site` where one is named.

    Raises:
        DeviceError: there is none, or it lacks the wheels.
    """
    found = find_sysroot()
    if found is None:
        raise DeviceError(
            "There is no AArch64 root folder with a Python",
            where=str(sysroot_place()),
            hint=f"Make it: {INSTALL}",
        )
    if site is not None and not site_folder(found, site).is_dir():
        raise DeviceError(
            f"The AArch64 root lacks the wheels of {site}",
            where=str(site_folder(found, site)),
            hint=f"Install them: {INSTALL} {site}",
        )
    return found


def site_folder(sysroot: Path, name: str) -> Path:
    """The folder of wheels of that name in a root."""
    return sysroot / SITES / f"site-{name}"


def core_view(sysroot: Path, core: Core, place: Path) -> Path:
    """A root of links to `sysroot`, in `place`, that tells programs that they run on `core`.

    Libraries choose their kernels by /proc/cpuinfo and /sys, and QEMU shows them those of this
    machine unless the root has its own. With a view for each core, several can run at once.

    Returns:
        The folder, for QEMU's option -L.
    """
    view = place / f"root-{core.name}"
    view.mkdir(parents=True)
    for child in sysroot.iterdir():
        if child.name not in OWN:
            (view / child.name).symlink_to(child.resolve(), target_is_directory=child.is_dir())
    for name, content in _machine(core).items():
        path = view / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="ascii")
    return view


def _machine(core: Core) -> dict[str, str]:
    """Files of a machine with one such core, by their path."""
    part, variant, revision = core.part, core.stepping[0], core.stepping[1]
    features = _NEW if core.macs.dotprod is not None else _OLD
    features += " i8mm bf16" if core.macs.i8mm is not None else ""
    midr = 0x41 << 24 | variant << 20 | 0xF << 16 | part << 4 | revision
    cpu = "sys/devices/system/cpu"
    lists = {f"{cpu}/{name}": "0\n" for name in ("possible", "present", "online", "kernel_max")}
    topology = {
        "core_id": "0",
        "physical_package_id": "0",
        "core_siblings_list": "0",
        "thread_siblings_list": "0",
        "cluster_cpus_list": "0",
        "core_siblings": "1",
        "thread_siblings": "1",
    }
    frequencies = ("cpuinfo_max_freq", "cpuinfo_min_freq", "scaling_max_freq")
    return {
        "proc/cpuinfo": (
            f"processor\t: 0\nBogoMIPS\t: 100.00\nFeatures\t: {features}\n"
            f"CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: {variant:#x}\n"
            f"CPU part\t: {part:#x}\nCPU revision\t: {revision}\n\n"
        ),
        f"{cpu}/cpu0/regs/identification/midr_el1": f"{midr:#018x}\n",
        **lists,
        **{f"{cpu}/cpu0/topology/{name}": f"{value}\n" for name, value in topology.items()},
        **{f"{cpu}/cpu0/cpufreq/{name}": f"{KILOHERTZ}\n" for name in frequencies},
    }


def python_command(view: Path, site: str) -> tuple[str, tuple[str, ...]]:
    """How to run the root's Python with the wheels of `site`, on one thread.

    Args:
        view: the root, or a core's view of it.
        site: which wheels it imports.

    Returns:
        The program, and QEMU's options for it.
    """
    environment = {
        "PYTHONPATH": str(site_folder(view, site)),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "ORT_DISABLE_TELEMETRY": "1",  # it is a thread, and only one may be counted
    }
    shown = (option for name, value in environment.items() for option in ("-E", f"{name}={value}"))
    return str(view / PYTHON), ("-L", str(view), *shown)
