"""Writes a bundle aside and renames it into place when it is whole."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from mfn_compile.bundle.guard import check_replaceable
from mfn_compile.bundle.manifest import (
    CHUNK,
    MANIFEST,
    BundleInfo,
    FileEntry,
    Manifest,
    check_names,
)
from mfn_compile.bundle.swap import swap_in, sync_folder
from mfn_compile.bundle.workspace import NEW, OLD, workspace
from mfn_compile.errors import BadInputError, DeviceError, UsageError

FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM)


def write_bundle(out: Path, files: Mapping[str, Path | bytes], info: BundleInfo) -> Path:
    """Write `files` and their manifest to the folder `out`, whole or not at all.

    Args:
        out: the folder to make. A previous bundle there is replaced.
        files: content by name; a name is a relative path with forward slashes.
        info: what the manifest says beside the files' hashes.

    Returns:
        The bundle's absolute path.

    Raises:
        UsageError: `out` holds something that this function did not write.
        BadInputError: a file to copy cannot be read.
        DeviceError: the file system is full, read-only or failed.
    """
    try:
        check_names(list(files))
    except ValueError as error:
        raise UsageError("A bundle cannot hold these files", why=str(error)) from error
    out = Path(os.path.abspath(out))
    check_replaceable(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with workspace(out) as work:
            new = work / NEW
            new.mkdir()  # not mkdtemp's 0700: this one is what stays
            _fill(new, files, info)
            # Looked at again: writing took a while, and somebody may have used the time.
            check_replaceable(out)
            swap_in(new, out, work / OLD)
    except OSError as error:
        raise _device_error(error, out, files) from error
    return out


def _fill(new: Path, files: Mapping[str, Path | bytes], info: BundleInfo) -> None:
    entries = []
    for name in sorted(files):
        path = new / name
        path.parent.mkdir(parents=True, exist_ok=True)
        size, digest = _write(path, files[name])
        entries.append(FileEntry(name=name, bytes=size, sha256=digest))
    facts = {field: getattr(info, field) for field in BundleInfo.model_fields}
    manifest = Manifest(files=tuple(entries), **facts)
    _write(new / MANIFEST, manifest.to_json().encode())
    for folder, _, _ in os.walk(new):
        sync_folder(Path(folder))


def _write(path: Path, content: Path | bytes) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with contextlib.ExitStack() as stack:
        blocks, mode = _blocks(content, stack)
        # The umask takes its bits off here, as for any file that a program creates.
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        stream = stack.enter_context(os.fdopen(target, "wb"))
        for block in blocks:
            digest.update(block)
            size += len(block)
            stream.write(block)
        stream.flush()
        os.fsync(stream.fileno())
    return size, digest.hexdigest()


def _blocks(content: Path | bytes, stack: contextlib.ExitStack) -> tuple[Iterator[bytes], int]:
    if isinstance(content, bytes):
        return iter((content,)), 0o666
    try:
        status = content.stat()
        if not stat.S_ISREG(status.st_mode):
            raise _unreadable(content, "it is not a regular file")
        stream = stack.enter_context(content.open("rb"))
    except OSError as error:
        raise _unreadable(content, error.strerror or str(error)) from error
    executable = bool(status.st_mode & stat.S_IXUSR)
    return iter(lambda: stream.read(CHUNK), b""), 0o777 if executable else 0o666


def _unreadable(path: Path, why: str) -> BadInputError:
    return BadInputError(
        "A file of the bundle cannot be read",
        where=str(path),
        why=why,
        hint="Run again with --no-cache, which makes it anew",
    )


def _device_error(error: OSError, out: Path, files: Mapping[str, Path | bytes]) -> DeviceError:
    why = error.strerror or str(error)
    if error.errno in FULL:
        return DeviceError(
            "There is no room left for the bundle",
            where=str(out),
            why=f"it needs {_megabytes(_total(files))} MB, and {_free(out)} MB are free: {why}",
            hint="Free some space, or name a folder on another disk with --out",
        )
    if error.errno in REFUSED:
        return DeviceError(
            "The output cannot be written",
            where=str(out),
            why=why,
            hint="Name a folder that you may write to with --out",
        )
    return DeviceError(
        "Writing the bundle failed",
        where=str(error.filename or out),
        why=why,
        hint="Check the disk, or name another folder with --out",
    )


def _total(files: Mapping[str, Path | bytes]) -> int:
    total = 0
    for content in files.values():
        with contextlib.suppress(OSError):
            total += len(content) if isinstance(content, bytes) else content.stat().st_size
    return total


def _free(out: Path) -> str:
    folder = out.parent
    while not folder.exists():
        folder = folder.parent
    try:
        return _megabytes(shutil.disk_usage(folder).free)
    except OSError:
        return "unknown"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.2f}"
