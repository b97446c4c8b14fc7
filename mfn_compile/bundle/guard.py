"""What a bundle may be written over: nothing, an empty folder, or a previous bundle."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

from mfn_compile.bundle.manifest import FAMILY, MANIFEST, walk_files
from mfn_compile.errors import DeviceError, UsageError

ATTEMPTS = 10
HINT = "Name a new folder with --out, or move what is there"


def check_replaceable(out: Path) -> None:
    """Refuse to write over anything that is not a bundle; worth calling before the long work.

    Raises:
        UsageError: `out` is a link, a file, a mount point, the current folder, or has files that
            are not of a bundle.
        DeviceError: it cannot be looked at.
    """
    try:
        _check_kind(out)
        if out.exists():
            _check_content(out)
    except OSError as error:
        raise DeviceError(
            "The output folder cannot be looked at",
            where=str(out),
            why=error.strerror or str(error),
            hint="Name a folder that you may read and write with --out",
        ) from error


def _check_kind(out: Path) -> None:
    real = os.path.realpath(out)
    if out.is_symlink():
        raise UsageError(
            "The output is a symbolic link", where=str(out), hint=f"Name the folder itself: {real}"
        )
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError("The output exists and is not a folder", where=str(out), hint=HINT)
    inside = f"Name a folder inside of it, such as {out / 'bundle'}"
    if os.path.ismount(out):
        raise UsageError(
            "The output is a mount point, which cannot be replaced in one step",
            where=str(out),
            hint=inside,
        )
    if Path.cwd().is_relative_to(real):
        raise UsageError(
            "The output is the current folder",
            where=str(out),
            why="it is replaced as a whole, and a shell in it would see the old one",
            hint=inside,
        )


def _check_content(out: Path) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        before = _identity(out)
        error = _objection(out)
        if error is None:
            return
        # Another run may have put its bundle here between a look and the next one.
        if _identity(out) == before or attempt == ATTEMPTS:
            raise error


def _identity(out: Path) -> tuple[int, int]:
    status = out.stat()
    return status.st_ino, status.st_ctime_ns


def _objection(out: Path) -> UsageError | None:
    if not any(out.iterdir()):
        return None
    listed = _listed(out)
    if listed is None:
        return UsageError(
            "The output folder is not empty and is not a bundle of mfn-compile",
            where=str(out),
            why="it would be replaced, and nothing that others wrote is ever deleted",
            hint=HINT,
        )
    foreign = sorted(set(walk_files(out)) - listed)
    if foreign:
        return UsageError(
            "The previous bundle holds files that mfn-compile did not write",
            where=str(out),
            why=f"replacing it would delete {', '.join(foreign)}",
            hint=HINT,
        )
    return None


def _listed(folder: Path) -> set[str] | None:
    """Names that a bundle of any version lists, or None where the folder is no bundle."""
    path = folder / MANIFEST
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return None
        document = json.loads(path.read_text(encoding="utf-8"))
        if not str(document["schema"]).startswith(FAMILY):
            return None
        return {str(entry["name"]) for entry in document["files"]} | {MANIFEST}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
