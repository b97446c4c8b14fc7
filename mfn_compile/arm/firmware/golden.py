"""Golden vectors: inputs and the oracle's embeddings, as files that a C program reads."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mfn_compile.errors import InternalCheckError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._,+-]{0,62}")
MOST = 1000
FOLDER = "golden"


@dataclass(frozen=True, eq=False)
class GoldenVector:
    """One input with the oracle's answer.

    Attributes:
        name: what the input is, a few plain words.
        rgb: uint8 [H, W, 3].
        quantized: int8 [H, W, 3], the same normalized and quantized, in the network's order; None
            where the network has no quantized input.
        embedding: float32 [D].
    """

    name: str
    rgb: NDArray[np.uint8]
    quantized: NDArray[np.int8] | None
    embedding: NDArray[np.float32]


def golden_files(vectors: Sequence[GoldenVector]) -> dict[str, bytes]:
    """The files of golden/ by their path in the bundle.

    Raises:
        InternalCheckError: no vectors, or arrays that do not have the shapes and types above.
    """
    _check(vectors)
    files: dict[str, bytes] = {}
    lines = ["# golden vectors of mfn-compile: number and name", f"count {len(vectors)}"]
    for index, vector in enumerate(vectors):
        lines.append(f"{index:03d} {vector.name}")
        files[f"{index:03d}.rgb"] = vector.rgb.tobytes()
        if vector.quantized is not None:
            files[f"{index:03d}.i8"] = vector.quantized.tobytes()
        files[f"{index:03d}.f32"] = vector.embedding.astype("<f4").tobytes()
    files["vectors.txt"] = ("\n".join(lines) + "\n").encode()
    sums = [f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files)]
    files["SHA256SUMS"] = "".join(sums).encode()
    return {f"{FOLDER}/{name}": content for name, content in files.items()}


def _check(vectors: Sequence[GoldenVector]) -> None:
    if not 1 <= len(vectors) <= MOST:
        raise _wrong(FOLDER, f"there must be 1 to {MOST} of them, not {len(vectors)}")
    shape, width = vectors[0].rgb.shape, vectors[0].embedding.shape
    values = None if vectors[0].quantized is None else ("int8", shape)
    wanted = [("uint8", shape), values, ("float32", width)]
    if len(shape) != 3 or shape[2] != 3 or len(width) != 1:
        raise _wrong(vectors[0].name, f"the image is {shape} and the embedding {width}")
    for vector in vectors:
        if not NAME.fullmatch(vector.name):
            raise _wrong(repr(vector.name), "a name has plain letters, at most 63")
        found = [
            None if array is None else (str(array.dtype), array.shape)
            for array in (vector.rgb, vector.quantized, vector.embedding)
        ]
        if found != wanted:
            raise _wrong(vector.name, f"its arrays are {found}")


def _wrong(where: str, why: str) -> InternalCheckError:
    return InternalCheckError(
        "Golden vectors cannot be written",
        where=where,
        why=why,
        hint="Report it with the command that you ran",
    )
