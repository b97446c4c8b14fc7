"""What is installed, what is missing, and what that disables."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from mfn_compile import environment
from mfn_compile.arm.firmware.linker import INSTALL, find_compiler, native_aarch64
from mfn_compile.arm.firmware.proof import find_emulator
from mfn_compile.device.emulator import require_emulator, require_host_compiler
from mfn_compile.device.mca import INSTALL as INSTALL_MCA
from mfn_compile.device.mca import find_mca
from mfn_compile.device.sysroot import INSTALL as INSTALL_ROOT
from mfn_compile.device.sysroot import SITES, find_sysroot, sysroot_place
from mfn_compile.errors import DeviceError
from mfn_compile.frozen import Frozen
from mfn_compile.resources import data_dir, demo_checkpoint
from mfn_compile.store import default_root, tool_version
from mfn_compile.target import has_vnni

MIN_FREE = 2_000_000_000  # bytes; a run with LFW keeps about 60 MB, fine-tuning some more


class Check(Frozen):
    """One thing that was looked at; `required` ones fail the whole examination."""

    name: str
    ok: bool
    required: bool
    found: str
    meaning: str
    remedy: str = ""


PACKAGES = (
    ("torch", True, "reads checkpoints, exports, fine-tunes"),
    ("torchao", False, "--qat needs it"),
    ("nncf", True, "quantizes"),
    ("onnx", True, "reads and writes models"),
    ("onnxsim", True, "simplifies the exported graph"),
    ("onnxruntime", True, "the outside judge of every quantized network"),
    ("openvino", True, "the intel targets"),
    ("apache-tvm", True, "the arm64 targets"),
)


def examine() -> tuple[Check, ...]:
    """Look at everything; imports nothing heavy, and asks some tools for their version."""
    others: tuple[Callable[[], Check], ...] = (
        _python,
        _cpu,
        _data,
        _demo,
        _cache,
        _cross_compiler,
        _emulator,
        _llvm_mca,
        _block_counter,
        _aarch64_root,
    )
    return (*(_package(*row) for row in PACKAGES), *(look() for look in others))


def failure(checks: tuple[Check, ...]) -> DeviceError | None:
    """The error that the examination ends with, None when everything required is there."""
    missing = [check for check in checks if check.required and not check.ok]
    if not missing:
        return None
    return DeviceError(
        f"{', '.join(check.name for check in missing)}: not usable",
        why="; ".join(f"{check.name}: {check.found}" for check in missing),
        hint="; ".join(dict.fromkeys(check.remedy for check in missing if check.remedy)),
    )


def _package(name: str, required: bool, purpose: str) -> Check:
    version = tool_version(name)
    return Check(
        name=name,
        ok=version != "absent",
        required=required,
        found=version,
        meaning=purpose,
        remedy="Install the toolkit again: python -m pip install .",
    )


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    supported = (3, 11) <= sys.version_info[:2] <= (3, 12)
    return Check(
        name="python",
        ok=supported,
        required=True,
        found=version,
        meaning="3.11 and 3.12 are supported",
        remedy="Use Python 3.11 or 3.12",
    )


def _cpu() -> Check:
    vnni = has_vnni(environment.cpu_flags())
    return Check(
        name="VNNI",
        ok=vnni,
        required=False,
        found=environment.cpu_name(),
        meaning="INT8 at full speed and full-range weights"
        if vnni
        else "absent: target intel uses half-range weights, INT8 is about 1.4 times as "
        "fast as fp32",
    )


def _cross_compiler() -> Check:
    found = find_compiler()
    return Check(
        name="AArch64 compiler",
        ok=found is not None,
        required=False,
        found="absent" if found is None else " ".join(found.command),
        meaning="arm64 targets: links lib/libmfn.so, builds the library's own proof"
        if found
        else "absent: arm64 bundles have no lib/libmfn.so, and verify cannot run",
        remedy=f"{INSTALL}, or: python -m pip install 'mfn-compile[zig]'",
    )


def _emulator() -> Check:
    found, native = find_emulator(), native_aarch64()
    return Check(
        name="AArch64 emulator",
        ok=native or found is not None,
        required=False,
        found="not needed here" if native else found or "absent",
        meaning="arm64 targets: runs the library's own proof"
        if native or found
        else "absent: what the library computes on ARM stays unproven, and verify cannot run",
        remedy=INSTALL,
    )


def _llvm_mca() -> Check:
    try:
        found = find_mca()
    except DeviceError as error:
        return Check(
            name="llvm-mca",
            ok=False,
            required=False,
            found=error.why or "absent",
            meaning="absent: `profile` has the in-order cores only",
            remedy=INSTALL_MCA,
        )
    return Check(
        name="llvm-mca",
        ok=True,
        required=False,
        found=f"{found.path} {found.version}",
        meaning="modelled cycles of Cortex-A72, Cortex-A76 and Neoverse N1",
    )


def _block_counter() -> Check:
    try:
        found = require_emulator()
        compiler = require_host_compiler()
    except DeviceError as error:
        return Check(
            name="virtual board",
            ok=False,
            required=False,
            found=error.why or error.what,
            meaning="absent: --device virtual:NAME and `profile` cannot count what a library does",
            remedy=error.hint,
        )
    return Check(
        name="virtual board",
        ok=True,
        required=False,
        found=f"{found} loads plugins, {compiler} builds ours",
        meaning="--device virtual:NAME: counts what the library executes",
    )


def _aarch64_root() -> Check:
    found = find_sysroot()
    sites = [] if found is None else sorted(p.name for p in (found / SITES).glob("site-*"))
    names = ", ".join(name.removeprefix("site-") for name in sites) or "no wheels"
    return Check(
        name="AArch64 Python root",
        ok=found is not None,
        required=False,
        found=f"{sysroot_place()} is absent" if found is None else f"{found} with {names}",
        meaning="runs peers (`bench`), calibration and an emulated board"
        if found
        else "absent: `bench` has no peers on virtual devices, boards cannot be emulated",
        remedy=INSTALL_ROOT,
    )


def _data() -> Check:
    try:
        folders = [data_dir("targets"), data_dir("calib")]
    except FileNotFoundError as error:
        return Check(
            name="data folders",
            ok=False,
            required=True,
            found=str(error),
            meaning="targets and recipes",
            remedy="Install the toolkit again",
        )
    counts = ", ".join(f"{len(list(f.glob('*.toml')))} in {f.name}" for f in folders)
    return Check(
        name="data folders", ok=True, required=True, found=counts, meaning="targets and recipes"
    )


def _demo() -> Check:
    path = demo_checkpoint()
    return Check(
        name="demo model",
        ok=path.is_file(),
        required=False,
        found=path.name if path.is_file() else "absent",
        meaning="runs without a checkpoint of your own",
    )


def _cache() -> Check:
    root = default_root()
    existing = next(folder for folder in (root, *root.parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    writable = _writable(existing)
    return Check(
        name="cache folder",
        ok=writable and free > MIN_FREE,
        required=False,
        found=f"{root}, {free / 1e9:.1f} GB free" + ("" if writable else ", not writable"),
        meaning="finished stages are kept there; a second run takes seconds",
        remedy="Set MFN_CACHE_DIR to another folder",
    )


def _writable(folder: Path) -> bool:
    probe = folder / ".mfn-compile-probe"
    try:
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    return True
