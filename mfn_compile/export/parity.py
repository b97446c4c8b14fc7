"""Whether an ONNX file computes what its source computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mfn_compile.errors import BadInputError, InternalCheckError
from mfn_compile.model.network import MobileFaceNet
from mfn_compile.model.preprocessing import Preprocessing
from mfn_compile.onnx_session import ORT_ERRORS, open_session
from mfn_compile.results import Parity

Images = NDArray[np.float32]
Embed = Callable[[Images], NDArray[np.float32]]

TOLERANCE = 1e-4
RANDOM_IMAGES = 8
MAX_FACES = 32
BATCH = 8
SEED = 20181


def torch_embedder(module: MobileFaceNet) -> Embed:
    """Float32 images [n, 3, H, W] to embeddings [n, D] through torch."""

    def embed(images: Images) -> NDArray[np.float32]:
        with torch.inference_mode():
            parts = [
                module(torch.from_numpy(images[start : start + BATCH])).numpy()
                for start in range(0, len(images), BATCH)
            ]
        return np.concatenate(parts)

    return embed


def onnx_embedder(model: Path | bytes, *, where: str) -> Embed:
    """Float32 images [n, 3, H, W] to embeddings [n, D] through ONNX Runtime.

    Graph optimizations are off, so that the file is judged as it is written. One image at a time,
    which every batch axis accepts.

    Raises:
        BadInputError: ONNX Runtime refuses the model; the returned function raises it as well.
    """
    try:
        session = open_session(model, optimized=False, threads=torch.get_num_threads())
    except ORT_ERRORS as error:
        raise _refused(error, where) from error
    name = session.get_inputs()[0].name

    def embed(images: Images) -> NDArray[np.float32]:
        try:
            outputs: list[Any] = [session.run(None, {name: image[None]})[0] for image in images]
        except ORT_ERRORS as error:
            raise _refused(error, where) from error
        return np.concatenate(outputs)

    return embed


def _refused(error: Exception, where: str) -> BadInputError:
    return BadInputError(
        "ONNX Runtime cannot run the model",
        where=where,
        why=" ".join(str(error).split())[:300],
        hint="export it again and check it with onnx.checker",
    )


def unit_length(embed: Embed) -> Embed:
    """The same embeddings scaled to length one."""

    def embed_unit(images: Images) -> NDArray[np.float32]:
        embeddings = embed(images)
        lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
        return np.asarray(embeddings / lengths, np.float32)

    return embed_unit


def parity_inputs(
    preprocessing: Preprocessing, face_crops: NDArray[np.uint8] | None
) -> dict[str, Images]:
    """What is compared: seeded normal noise, and the first faces of uint8 [n, 112, 112, 3]."""
    shape = (RANDOM_IMAGES, 3, preprocessing.height, preprocessing.width)
    noise = np.random.default_rng(SEED).standard_normal(shape, dtype=np.float32)
    inputs = {f"{RANDOM_IMAGES} random images": noise}
    if face_crops is not None and len(face_crops):
        faces = face_crops[:MAX_FACES]
        inputs[f"{len(faces)} face crops"] = preprocessing.apply(faces)
    return inputs


def check_parity(
    reference: Embed, candidate: Embed, inputs: Mapping[str, Images], *, where: str
) -> Parity:
    """Largest difference of the candidate's embeddings, absolute and over max|reference|.

    Raises:
        InternalCheckError: the relative difference exceeds 1e-4 on any of the inputs, or an
            embedding is not finite.
    """
    absolute = relative = 0.0
    for name, images in inputs.items():
        expected, actual = reference(images), candidate(images)
        if expected.shape != actual.shape:
            raise InternalCheckError(
                f"embeddings have shape {list(actual.shape)}, not {list(expected.shape)}",
                where=where,
            )
        difference, scale = np.abs(expected - actual).max(), np.abs(expected).max()
        ratio = difference / scale if scale > 0 else difference
        # written so that NaN fails too
        if not ratio <= TOLERANCE:
            raise InternalCheckError(
                "the exported ONNX model does not compute what the checkpoint computes",
                where=where,
                why=f"On {name} the embeddings differ by {difference:.3g}, that is {ratio:.3g} of "
                f"the largest value {scale:.3g}; the limit is {TOLERANCE:g}",
                hint="please report this with the checkpoint",
            )
        absolute, relative = max(absolute, float(difference)), max(relative, float(ratio))
    return Parity(
        inputs=tuple(inputs),
        max_abs_difference=absolute,
        max_relative_difference=relative,
        tolerance=TOLERANCE,
    )
