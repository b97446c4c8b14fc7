"""The hidden folder `.NAME.mfn-…` beside a bundle `NAME`, in which the next one is made.

It is locked while its writer lives, so that one left by a killed run is told apart from one in
use, and cleared by the next run.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

NEW, OLD = "new", "old"


@contextlib.contextmanager
def workspace(out: Path) -> Iterator[Path]:
    """A work folder on the file system of `out`, gone at the end."""
    clear_stale(out)
    work, lock = _locked_folder(out)
    try:
        yield work
    finally:
        # With the previous bundle still aside, deleting would lose it: the next run restores it.
        if out.exists() or not (work / OLD).exists():
            shutil.rmtree(work, ignore_errors=True)
        os.close(lock)


def clear_stale(out: Path) -> None:
    """Remove what a killed run left; put a bundle back that it had moved aside."""
    for work in sorted(out.parent.glob(f"{glob.escape(_prefix(out))}*")):
        try:
            lock = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue  # not a folder, or not ours
        try:
            if os.fstat(lock).st_uid == os.geteuid() and _lock(lock):
                if (work / OLD).is_dir() and not out.exists():
                    os.rename(work / OLD, out)
                shutil.rmtree(work, ignore_errors=True)
        except OSError:
            continue  # a file system without locks: who lives there is not known
        finally:
            os.close(lock)


def _prefix(out: Path) -> str:
    return f".{out.name}.mfn-"


def _locked_folder(out: Path) -> tuple[Path, int]:
    while True:
        work = Path(tempfile.mkdtemp(prefix=_prefix(out), dir=out.parent))
        lock = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
        try:
            held = _lock(lock)
        except OSError:
            return work, lock  # a file system without locks: go on without
        # Between mkdtemp and the lock, another run may have taken the folder for a stale one.
        if held and work.exists():
            return work, lock
        os.close(lock)


def _lock(folder: int) -> bool:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
