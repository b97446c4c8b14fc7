"""`mfn-compile evaluate`: measure the networks of a bundle again, on any images and engine."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Literal

from mfn_compile.bundle.manifest import Manifest, read_manifest, verify_bundle
from mfn_compile.errors import BadInputError
from mfn_compile.evaluate.embeddings import Embedder
from mfn_compile.evaluate.imageset import Dataset
from mfn_compile.material import open_evaluation
from mfn_compile.progress import Progress
from mfn_compile.request import DataSource
from mfn_compile.results import Evaluation
from mfn_compile.stages import EVALUATE
from mfn_compile.store import Store
from mfn_compile.target import Target
from mfn_compile.tomlfile import validate

Engine = Literal["shipped", "openvino", "onnxruntime"]
FP32_ONNX = "onnx/model_fp32.onnx"
QDQ_ONNX = "onnx/model_int8_qdq.onnx"
INT8_IR = "model/model_int8.xml"


def evaluate_bundle(
    bundle: Path, data: DataSource, engine: Engine, store: Store, progress: Progress
) -> Evaluation:
    """Evaluate a bundle's INT8 network against its float one.

    Args:
        bundle: folder that a run or `quantize` wrote.
        data: evaluation images; none means the rendered benchmark, for the demo model only.
        engine: `shipped` runs what the target runs, `openvino` the network in OpenVINO,
            `onnxruntime` the QDQ file with graph optimizations off (slow: the outside judge).

    Raises:
        InternalCheckError: the bundle is damaged.
        BadInputError: it is no bundle, or images cannot be used.
    """
    verify_bundle(bundle)
    manifest = read_manifest(bundle)
    dataset = open_evaluation(data, demo=manifest.demo)
    if dataset is None:
        raise BadInputError(
            "There are no pairs to evaluate on",
            hint="Give --lfw LFW_HOME, --benchmark SET.bin, or --images DIR with --pairs FILE",
        )
    with tempfile.TemporaryDirectory(prefix="mfn-compile-") as scratch:
        fp32, int8 = _embedders(bundle, manifest, engine, Path(scratch))
        return stored_evaluation(dataset, fp32, int8, data.all_pairs, store, progress)


def stored_evaluation(
    dataset: Dataset,
    fp32: Embedder,
    int8: Embedder,
    all_pairs: bool,
    store: Store,
    progress: Progress,
) -> Evaluation:
    """The evaluate stage: known from the store, or computed now.

    Raises:
        BadInputError: an image cannot be used.
        InternalCheckError: an embedding is zero or not finite.
    """
    inputs = {
        "images": dataset.images.digest,
        "pairs": dataset.pairs.digest(),
        "fp32": fp32.key,
        "int8": int8.key,
        "all_pairs": all_pairs,
        "name": dataset.name,
    }

    def build(folder: Path) -> Evaluation:
        from mfn_compile.evaluate.evaluator import evaluate  # noqa: PLC0415 - imports scipy

        return evaluate(
            dataset.images,
            dataset.pairs,
            fp32,
            int8,
            dataset_name=dataset.name,
            all_pairs=all_pairs,
            rendered=dataset.rendered,
            cache_dir=store.folder("embeddings"),
            progress=progress,
        )

    return store.run(EVALUATE, inputs, build).result


def _embedders(
    bundle: Path, manifest: Manifest, engine: Engine, scratch: Path
) -> tuple[Embedder, Embedder]:
    files = [bundle / FP32_ONNX, bundle / QDQ_ONNX]
    for path in files:
        if not path.is_file():
            raise BadInputError("The bundle holds no such network", where=str(path))
    text = (bundle / "target.json").read_text(encoding="utf-8")
    target = validate(Target, json.loads(text), where=str(bundle), kind="target")
    if engine == "onnxruntime":
        return _judge(files[0], manifest, optimize=True), _judge(files[1], manifest, optimize=False)
    if engine == "shipped" and target.backend == "tvm":
        from mfn_compile.arm.embedder import IntegerEmbedder  # noqa: PLC0415 - only this engine

        return _judge(files[0], manifest, optimize=True), IntegerEmbedder(
            files[1], manifest.preprocessing
        )
    return _openvino(bundle, files, manifest, target, scratch)


def _judge(path: Path, manifest: Manifest, *, optimize: bool) -> Embedder:
    from mfn_compile import environment  # noqa: PLC0415 - only this engine needs them
    from mfn_compile.evaluate.onnx_embedder import OnnxRuntimeEmbedder  # noqa: PLC0415

    return OnnxRuntimeEmbedder(
        path, manifest.preprocessing, optimize=optimize, threads=environment.cores()
    )


def _openvino(
    bundle: Path, files: list[Path], manifest: Manifest, target: Target, scratch: Path
) -> tuple[Embedder, Embedder]:
    from mfn_compile.intel.embedder import OpenVinoEmbedder  # noqa: PLC0415
    from mfn_compile.intel.ir import convert  # noqa: PLC0415

    device, isa = target.runtime.device, target.runtime.isa
    shipped = bundle / INT8_IR
    xmls = [convert(files[0], scratch / "model_fp32.xml")[0]]
    # A bundle of `quantize`, or of another target, holds no model of OpenVINO.
    xmls.append(shipped if shipped.is_file() else convert(files[1], scratch / "model_int8.xml")[0])
    properties = manifest.openvino.properties if manifest.openvino else {}
    first = OpenVinoEmbedder(xmls[0], manifest.preprocessing, device, isa)
    return first, OpenVinoEmbedder(xmls[1], manifest.preprocessing, device, isa, properties)
