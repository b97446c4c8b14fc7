"""Counted runs of ncnn's networks on the virtual board, every one kept in a folder."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mfn_compile.device.blocks import TITLE, Counts, parse_counts, read_counts
from mfn_compile.device.board import Core
from mfn_compile.device.runner import run_counted
from mfn_compile.device.sysroot import core_view, python_command, require_sysroot, site_folder

PROGRAM = Path(__file__).with_name("ncnn_inference.py")
SITE = "ncnn"
SECONDS = 1800.0  # ResNet-18 takes half a minute on a quiet machine


@dataclass(frozen=True)
class Run:
    """One network on one core."""

    core: Core
    network: str
    text: str  # of the .param file
    size: int  # width and height of its image

    @property
    def half(self) -> bool:
        """Whether ncnn computes in float16: it does by default where the core can."""
        return self.core.macs.dotprod is not None

    def name(self, wheel: str) -> str:
        """Name of the file of counts: another one for whatever may change them."""
        digest = hashlib.sha256(PROGRAM.read_bytes())
        machine = self.core.model_dump_json(include={"qemu", "part", "stepping", "l1", "l2"})
        for part in (self.text, str(self.size), machine, str(self.half), wheel):
            digest.update(part.encode() + b"\0")
        return f"{self.core.name}-{self.network}-{digest.hexdigest()[:12]}.txt"


def wheel() -> str:
    """Name and version of the ncnn wheel in the AArch64 root.

    Raises:
        DeviceError: there is no root, or no such wheel in it.
    """
    root = require_sysroot(SITE)
    found = sorted(site_folder(root, SITE).glob("ncnn-*.dist-info"))
    return found[-1].name.removesuffix(".dist-info").replace("-", " ") if found else "ncnn"


def stored(run: Run, folder: Path, version: str) -> Counts | None:
    """What was counted before, None if it was not."""
    path = folder / run.name(version)
    return read_counts(path) if path.is_file() else None


def count(run: Run, folder: Path, version: str) -> Counts:
    """Count a run, or take what was counted before.

    Raises:
        DeviceError: a tool is missing, or the program failed.
    """
    known = stored(run, folder, version)
    if known is not None:
        return known
    with tempfile.TemporaryDirectory(prefix="mfn-calibrate-") as place:
        view = core_view(require_sysroot(SITE), run.core, Path(place))
        param = Path(place, f"{run.network}.param")
        param.write_text(run.text, encoding="ascii")
        python, options = python_command(view, SITE)
        words = (python, PROGRAM, param, str(run.size), str(int(run.half)))
        counts = run_counted(words, run.core, options=options, seconds=SECONDS)
    save(counts, folder / run.name(version))
    return counts


def save(counts: Counts, path: Path) -> None:
    """Write counts in the plugin's format; a run that is stopped leaves no half file."""
    rows = [
        f"{block.address:x} {block.count:.0f} {block.l1} {block.l2} {block.code.hex()}"
        for block in counts.blocks
    ]
    head = (TITLE, f"threads {counts.threads} accesses {counts.accesses}")
    text = "\n".join([*head, *rows, f"end {len(rows)}"]) + "\n"
    parse_counts(text)
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(f".{os.getpid()}")
    half.write_text(text, encoding="ascii")
    half.replace(path)
