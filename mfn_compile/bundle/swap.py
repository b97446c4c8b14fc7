"""Puts a finished folder in the place of another one, in one step where the system can."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

from mfn_compile.errors import DeviceError

AT_FDCWD = -100
RENAME_EXCHANGE = 2
# What kernels and file systems answer that do not know the exchange.
UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)
ATTEMPTS = 10  # other runs may put a bundle there at the same moment


def swap_in(new: Path, out: Path, aside: Path) -> None:
    """Make `new` be `out`; what was there before ends at `new` or at `aside`.

    Raises:
        OSError: it could not be done; `out` is as it was.
        DeviceError: it could not be done, nor undone; the message says where the old one is.
    """
    for _ in range(ATTEMPTS):
        try:
            # POSIX rename also replaces an empty folder in one step.
            os.rename(new, out)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            break
        if exchange(new, out) or _replace(new, out, aside):
            break
    else:
        raise OSError(errno.EBUSY, "other runs keep writing there", str(out))
    sync_folder(out.parent)


def exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one step; False where the system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    names = (os.fsencode(first), os.fsencode(second))
    if call(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in UNSUPPORTED or number == errno.ENOENT:
        return False
    raise OSError(number, os.strerror(number), str(second))


def _replace(new: Path, out: Path, aside: Path) -> bool:
    """Two renames; a kill between them leaves the old bundle aside, for the next run to restore."""
    try:
        os.rename(out, aside)
    except FileNotFoundError:
        return False  # another run moved it away: try again
    try:
        os.rename(new, out)
    except BaseException:
        _restore(aside, out)
        raise
    return True


def _restore(aside: Path, out: Path) -> None:
    try:
        os.rename(aside, out)
    except OSError as error:
        raise DeviceError(
            "The bundle could not be replaced, and the previous one could not be put back",
            where=str(out),
            why=error.strerror or str(error),
            hint=f"The previous bundle is whole at {aside}; move it back by hand",
        ) from error


def sync_folder(folder: Path) -> None:
    """Have the names in a folder survive a power cut, where the file system can promise it."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
