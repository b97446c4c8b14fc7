"""Writing a file whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from mfn_compile.errors import DeviceError


def write_whole(path: Path, content: bytes) -> None:
    """Write beside the place and rename, so that no half file ever has the name.

    Raises:
        DeviceError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
            os.chmod(temporary, 0o644)  # mkstemp makes it private
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise DeviceError(
            "The file cannot be written",
            where=str(path),
            why=error.strerror or str(error),
            hint="Free some space or choose another output",
        ) from error
