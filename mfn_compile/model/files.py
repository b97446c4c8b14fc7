"""The file that a checkpoint comes in: exists, has a sane size, has a hash."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mfn_compile.errors import BadInputError

MAX_BYTES = 512 * 1024 * 1024  # a MobileFaceNet has about 4 MB


def checked_sha256(path: Path, *, max_bytes: int = MAX_BYTES) -> str:
    """SHA-256 of a checkpoint file as 64 hexadecimal digits; its size is checked before reading.

    Raises:
        BadInputError: the file is missing, no regular file, empty, too large or unreadable.
    """
    where = str(path)
    if not path.exists():
        raise BadInputError("the checkpoint does not exist", where=where, hint="check the path")
    if not path.is_file():
        raise BadInputError(
            "the checkpoint is a directory or a device, not a file",
            where=where,
            hint="name the .pt, .pth, .ckpt, .safetensors or .onnx file itself",
        )
    try:
        size = path.stat().st_size
        if size == 0:
            raise BadInputError("the checkpoint is empty", where=where, hint="download it again")
        if size > max_bytes:
            raise BadInputError(
                f"the checkpoint has {size / 1e6:.0f} MB, the limit is {max_bytes / 1e6:.0f} MB",
                where=where,
                why="A MobileFaceNet has about 4 MB",
                hint="save the network's state_dict alone, without the classifier and optimizer",
            )
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInputError("the checkpoint cannot be read", where=where, why=str(error)) from error
