"""The export stage: a loaded checkpoint to a folded, simplified, checked fp32 ONNX file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from mfn_compile.export.fold import fold_batchnorm
from mfn_compile.export.graph import finish, graph_of_file, graph_of_module, simplify
from mfn_compile.export.parity import (
    Embed,
    check_parity,
    onnx_embedder,
    parity_inputs,
    torch_embedder,
    unit_length,
)
from mfn_compile.files import write_whole
from mfn_compile.model.loader import LoadedModel
from mfn_compile.model.onnx_model import opset_of
from mfn_compile.results import ExportResult, Parity

FILE_NAME = "model_fp32.onnx"
OPSET = 17


def export(
    model: LoadedModel,
    out_dir: Path,
    *,
    dynamic_batch: bool = False,
    opset: int = OPSET,
    face_crops: NDArray[np.uint8] | None = None,
) -> ExportResult:
    """Write `model_fp32.onnx` into `out_dir` and check it against the checkpoint.

    The embedding is not L2-normalized, also where an ONNX checkpoint ends with such a norm.
    Input "input" float32 [N, 3, H, W], output "embedding" float32 [N, D]; N is 1 unless
    `dynamic_batch`. The same weights give the same bytes.

    Args:
        model: what `load_checkpoint` returned.
        out_dir: made when it is missing.
        dynamic_batch: leave the batch axis free.
        opset: ONNX operator set; an ONNX checkpoint with a newer one keeps its own.
        face_crops: uint8 RGB [n, 112, 112, 3] to check the export on, besides noise.

    Raises:
        InternalCheckError: the file does not compute what the checkpoint computes.
        BadInputError, UsageError: an ONNX checkpoint cannot be used this way.
        DeviceError: the file cannot be written.
    """
    reference: Embed
    if model.module is not None:
        where = model.info.name
        folded = fold_batchnorm(model.module)
        graph = graph_of_module(folded, opset=opset, dynamic_batch=dynamic_batch)
        reference = torch_embedder(model.module)
    else:
        assert model.onnx_path is not None
        where = str(model.onnx_path)
        # first, because ONNX Runtime finds contradictions that the simplifier trips over
        reference = onnx_embedder(model.onnx_path, where=where)
        graph = graph_of_file(model.onnx_path, opset=opset, dynamic_batch=dynamic_batch)
    simplified, norm_dropped = simplify(graph, where=where)
    content = finish(simplified, model.info)
    candidate = onnx_embedder(content, where=where)
    parity = check_parity(
        reference,
        unit_length(candidate) if norm_dropped else candidate,
        parity_inputs(model.info.preprocessing, face_crops),
        where=where,
    )
    write_whole(out_dir / FILE_NAME, content)
    return _result(content, dynamic_batch, parity)


def _result(content: bytes, dynamic_batch: bool, parity: Parity) -> ExportResult:
    written = onnx.load_model_from_string(content)
    return ExportResult(
        file=FILE_NAME,
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        opset=opset_of(written),
        dynamic_batch=dynamic_batch,
        convolutions=sum(node.op_type == "Conv" for node in written.graph.node),
        parity=parity,
    )
