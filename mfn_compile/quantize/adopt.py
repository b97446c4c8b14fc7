"""A QDQ file that somebody else's quantizer wrote, taken in place of our own."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from mfn_compile.errors import BadInputError
from mfn_compile.files import write_whole
from mfn_compile.model.onnx_model import load_onnx
from mfn_compile.model.preprocessing import Preprocessing
from mfn_compile.onnx_session import ORT_ERRORS
from mfn_compile.quantize.calibration import CalibrationData, describe
from mfn_compile.quantize.graph import Graph
from mfn_compile.quantize.held_out import Agreement, HeldOut
from mfn_compile.quantize.qdq import QUANTIZE, Layer, layers_of, load_model
from mfn_compile.quantize.quantizer import FILE_NAME, SENSITIVITY_CROPS
from mfn_compile.quantize.sensitivity import layer_errors
from mfn_compile.recipe import Recipe
from mfn_compile.results import LayerError, QuantizeCandidate, QuantizeResult

LEAST_COSINE = 0.5  # below it, the file is another network's


def adopt(
    source: Path,
    fp32: Path,
    *,
    held_out: NDArray[np.uint8],
    calibration: CalibrationData,
    preprocessing: Preprocessing,
    recipe: Recipe,
    folder: Path,
) -> QuantizeResult:
    """Copy a QDQ file to `folder` and judge it against the float network.

    Args:
        source: the QDQ file.
        fp32: the float network that it was quantized from, as ONNX.
        held_out: uint8 RGB crops [n, 112, 112, 3] that judge it.
        calibration: crops that this run would calibrate on; not used for the file.

    Raises:
        BadInputError: the file cannot be used, is not quantized, or computes something else.
    """
    model = load_onnx(source)
    if not any(node.op_type == QUANTIZE for node in model.graph.node):
        raise BadInputError(
            "The ONNX file is not quantized",
            where=str(source),
            why="It has no QuantizeLinear",
            hint="Leave --qdq out: quantizing the checkpoint is what this program does",
        )
    content = model.SerializeToString(deterministic=True)
    judge = HeldOut(fp32, held_out, preprocessing)
    agreement = _agreement(judge, content, source)
    write_whole(folder / FILE_NAME, content)
    layers = layers_of(Graph(model))
    return QuantizeResult(
        file=FILE_NAME,
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        recipe=recipe.name,
        overflow_fix="disable",  # if it has one, the file does not say so
        grid="free",
        method="given",
        candidates=(
            QuantizeCandidate(
                method="given",
                held_out_cosine=agreement.mean,
                held_out_min_cosine=agreement.minimum,
            ),
        ),
        held_out_images=len(held_out),
        calibration=describe(calibration),
        quantized_convolutions=sum(layer.quantized for layer in layers),
        float_convolutions=tuple(layer.name for layer in layers if not layer.quantized),
        per_channel_activations=_per_channel(model),
        layers=_errors(fp32, model, layers, judge),
    )


def _agreement(judge: HeldOut, content: bytes, source: Path) -> Agreement:
    try:
        found = judge.judge(content)
    except (*ORT_ERRORS, ValueError) as error:
        raise BadInputError(
            "The QDQ file does not take the checkpoint's input or give its embedding",
            where=str(source),
            why=str(error).strip().partition("\n")[0][:300],
            hint="Give the file that was quantized from this checkpoint",
        ) from error
    if not found.mean >= LEAST_COSINE:
        raise BadInputError(
            "The QDQ file computes something else than the checkpoint",
            where=str(source),
            why=f"The mean cosine of their embeddings is {found.mean:.3f} on held-out crops",
            hint="Give the file that was quantized from this checkpoint, for this preprocessing",
        )
    return found


def _per_channel(model: onnx.ModelProto) -> int:
    graph = Graph(model)
    scales = [
        node.input[1]
        for node in graph.nodes
        if node.op_type == QUANTIZE and not graph.has(node.input[0])
    ]
    return sum(graph.has(name) and graph.array(name).size > 1 for name in scales)


def _errors(
    fp32: Path, model: onnx.ModelProto, layers: tuple[Layer, ...], judge: HeldOut
) -> tuple[LayerError, ...]:
    """Errors by layer, where the file has the layers of the float network."""
    reference = load_model(fp32)
    if [layer.op for layer in layers_of(Graph(reference))] != [layer.op for layer in layers]:
        return ()
    return layer_errors(reference, model, judge.images[:SENSITIVITY_CROPS])
