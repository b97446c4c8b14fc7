"""Reads weight files that nobody vouches for: no code is run, every tensor is checked."""

from __future__ import annotations

import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mfn_compile.errors import BadInputError
from mfn_compile.model.files import MAX_BYTES, checked_sha256

TORCH_SUFFIXES = (".pt", ".pth", ".ckpt")
SAFETENSORS_SUFFIX = ".safetensors"
WRAPPERS = ("state_dict", "net_state_dict", "model_state_dict", "model", "backbone", "net")
PREFIXES = ("module.", "_orig_mod.", "backbone.", "model.", "net.", "network.")
# What torch's restricted unpickler raises on damaged or hostile bytes.
UNREADABLE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    OverflowError,
    MemoryError,
)


@dataclass(frozen=True)
class Weights:
    """A flat state dict: float32 tensors (and int64 step counters), all finite.

    `metadata` is the text header of a safetensors file, empty for the others.
    """

    state: dict[str, Tensor]
    sha256: str
    metadata: dict[str, str]


def read_weights(path: Path, *, max_bytes: int = MAX_BYTES) -> Weights:
    """Read `.pt`, `.pth`, `.ckpt` or `.safetensors`, unwrapped and without key prefixes.

    Raises:
        BadInputError: missing, empty, too large, damaged, holds code, holds something other than
            tensors, or holds NaN or infinity.
    """
    sha256 = checked_sha256(path, max_bytes=max_bytes)
    suffix = path.suffix.lower()
    content: object
    metadata: dict[str, str] = {}
    if suffix == SAFETENSORS_SUFFIX:
        content, metadata = _read_safetensors(path)
    elif suffix in TORCH_SUFFIXES:
        content = _read_torch(path, max_bytes)
    else:
        raise BadInputError(
            f"'{path.suffix}' is no checkpoint format",
            where=str(path),
            hint="use .pt, .pth, .ckpt, .safetensors or .onnx",
        )
    state = _strip_prefixes(_unwrap(content, path))
    return Weights(_checked(state, path, max_bytes), sha256, metadata)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(str(path), framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, RuntimeError, OSError, ValueError, KeyError) as error:
        raise BadInputError(
            "the safetensors file is damaged or truncated",
            where=str(path),
            why=str(error).splitlines()[0] if str(error) else type(error).__name__,
            hint="download or copy it again",
        ) from error


def _read_torch(path: Path, max_bytes: int) -> object:
    try:
        zipped = zipfile.is_zipfile(path)
        if zipped:
            _check_archive(path, max_bytes)
        # mmap keeps a classifier or optimizer beside the network out of memory
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except UNREADABLE as error:
        raise _torch_error(error, path) from error


def _check_archive(path: Path, max_bytes: int) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > max_bytes:
        raise BadInputError(
            f"the checkpoint unpacks to {unpacked / 1e6:.0f} MB, "
            f"the limit is {max_bytes / 1e6:.0f} MB",
            where=str(path),
        )
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise BadInputError(
            "the checkpoint is a TorchScript program, not a state dict",
            where=str(path),
            hint="save the network's state_dict(), or export it to ONNX",
        )


def _torch_error(error: BaseException, path: Path) -> BadInputError:
    text = str(error)
    refused = re.search(r"GLOBAL ([\w.]+)", text) or re.search(r"global:? ([\w.]+\.[\w.]+)", text)
    if refused:
        return BadInputError(
            f"the checkpoint refers to {refused[1]}, which is code and not weights",
            where=str(path),
            why="Loading it could run a program, so it was refused and nothing was run",
            hint="save the network's state_dict() instead of the whole object",
        )
    return BadInputError(
        "the checkpoint is damaged or no torch file",
        where=str(path),
        why=text.splitlines()[0][:200] if text else type(error).__name__,
        hint="download or copy it again",
    )


def _unwrap(content: object, path: Path) -> Mapping[str, object]:
    """Descend through {'state_dict': {...}} and the like to the mapping that holds tensors."""
    while isinstance(content, Mapping):
        wrapped = next((w for w in WRAPPERS if isinstance(content.get(w), Mapping)), None)
        if wrapped is None:
            break
        content = content[wrapped]
    if not isinstance(content, Mapping):
        raise BadInputError(
            f"the checkpoint holds a {type(content).__name__}, not a state dict",
            where=str(path),
            hint="save the network's state_dict()",
        )
    if not content:
        raise BadInputError("the checkpoint holds no tensors", where=str(path))
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise BadInputError(
                f"entry {key!r} of the checkpoint is a {type(value).__name__}, not a tensor",
                where=str(path),
                hint="save the state_dict() alone, or under the key "
                + ", ".join(repr(w) for w in WRAPPERS),
            )
    return content


def _strip_prefixes(state: Mapping[str, object]) -> dict[str, object]:
    """Drop wrappers' prefixes, as of DataParallel, that every key has."""
    keys = list(state)
    values = list(state.values())
    while prefix := next((p for p in PREFIXES if all(k.startswith(p) for k in keys)), None):
        keys = [key.removeprefix(prefix) for key in keys]
    return dict(zip(keys, values, strict=True))


def _checked(state: Mapping[str, object], path: Path, max_bytes: int) -> dict[str, Tensor]:
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    # a strided view may claim more elements than the file has bytes
    if sum(tensor.numel() for tensor in tensors.values()) * 4 > max_bytes:
        raise BadInputError("the checkpoint's tensors exceed the size limit", where=str(path))
    return {key: _checked_tensor(key, tensor, path) for key, tensor in tensors.items()}


def _checked_tensor(key: str, tensor: Tensor, path: Path) -> Tensor:
    where = f"{path}: {key}"
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
        raise BadInputError(
            "a tensor is sparse, quantized or without data",
            where=where,
            hint="use the float checkpoint that the network was trained to",
        )
    if tensor.numel() == 0:
        raise BadInputError("a tensor has no elements", where=where)
    if not tensor.is_floating_point():
        if tensor.dtype is torch.int64 and tensor.dim() == 0:
            return tensor.clone()
        raise BadInputError(
            f"a tensor is {str(tensor.dtype).removeprefix('torch.')}, not a float type",
            where=where,
            hint="use the float checkpoint that the network was trained to",
        )
    copy = tensor.detach().to(torch.float32, copy=True).contiguous()
    if not bool(torch.isfinite(copy).all()):
        raise BadInputError(
            "a tensor holds NaN or infinity",
            where=where,
            hint="the training diverged or the file is damaged: use an earlier checkpoint",
        )
    return copy
