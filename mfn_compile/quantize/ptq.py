"""Post-training quantization: NNCF on the float ONNX file, steered by a recipe."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from mfn_compile.progress import Progress, Task
from mfn_compile.quantize.equalize import equalize
from mfn_compile.quantize.graph import Graph
from mfn_compile.quantize.layers import match_layers
from mfn_compile.quantize.onnxruntime_session import Floats
from mfn_compile.quantize.quiet import quiet_nncf
from mfn_compile.quantize.ranges import search_activation_ranges
from mfn_compile.recipe import Ptq, Recipe

SEARCH_IMAGES = 96  # images that equalization and our range search look at


def prepare(fp32: onnx.ModelProto, images: Floats, recipe: Recipe) -> onnx.ModelProto:
    """The float network that is quantized: `fp32`, with equalized channels where asked for.

    It computes the same embeddings; its inner tensors are what the QDQ network's stand for.
    """
    if not recipe.ptq.equalization:
        return fp32
    return equalize(fp32, spread(images, SEARCH_IMAGES), recipe.ptq.equalization)[0]


def post_training_quantize(
    fp32: onnx.ModelProto, images: Floats, recipe: Recipe, overflow_fix: str, progress: Progress
) -> onnx.ModelProto:
    """The QDQ network of a float one.

    Args:
        fp32: what `prepare` returned, opset 13 or later.
        images: preprocessed calibration images float32 [N, 3, H, W].
        recipe: how to quantize.
        overflow_fix: "disable", "first_layer_only" or "enable" (half-range weights).
        progress: told about the steps.

    Raises:
        BadInputError: the recipe names a layer that the network does not have.
    """
    ptq = recipe.ptq
    names = [node.name for node in Graph(fp32).layers()]
    ignored = match_layers(ptq.float_layers, names)
    with progress.task("quantizing: ranges", len(images)) as task:
        quantized = _run_nncf(fp32, images, recipe, ignored, overflow_fix, task)
    if ptq.activation_range == "mse":
        with progress.task("quantizing: least squared error", 1) as task:
            sample = spread(images, SEARCH_IMAGES)
            search_activation_ranges(quantized, fp32, sample, affine=ptq.preset == "mixed")
            task.advance()
    return quantized


def spread(images: Floats, count: int) -> Floats:
    """At most `count` images, evenly spread over `images`."""
    if len(images) <= count:
        return images
    chosen: Floats = images[np.linspace(0, len(images) - 1, count).astype(int)]
    return chosen


def advanced_parameters(nncf: Any, ptq: Ptq, overflow_fix: str) -> Any:
    """A recipe in NNCF's terms, the same for its ONNX and torch back ends."""
    parameters = nncf.AdvancedQuantizationParameters(
        overflow_fix=nncf.OverflowFix(overflow_fix),
        disable_bias_correction=ptq.bias_correction == "none",
    )
    estimator = _range_estimator(ptq)
    if estimator is not None:
        parameters.activations_range_estimator_params = estimator
    if not ptq.per_channel_depthwise_activations:
        parameters.activations_quantization_params = (
            nncf.quantization.advanced_parameters.QuantizationParameters(per_channel=False)
        )
    return parameters


def _run_nncf(
    fp32: onnx.ModelProto,
    images: Floats,
    recipe: Recipe,
    ignored: tuple[str, ...],
    overflow_fix: str,
    task: Task,
) -> onnx.ModelProto:
    entry = fp32.graph.input[0].name

    def feed(index: int) -> dict[str, Floats]:
        task.advance()
        return {entry: images[index : index + 1]}

    with quiet_nncf() as nncf:
        np.random.seed(recipe.calibration.seed)
        model = onnx.ModelProto()
        model.CopyFrom(fp32)
        quantized = nncf.quantize(
            model,
            nncf.Dataset(range(len(images)), feed),
            preset=nncf.QuantizationPreset(recipe.ptq.preset),
            subset_size=len(images),
            fast_bias_correction=recipe.ptq.bias_correction != "full",
            ignored_scope=nncf.IgnoredScope(names=list(ignored)) if ignored else None,
            advanced_parameters=advanced_parameters(nncf, recipe.ptq, overflow_fix),
        )
    assert isinstance(quantized, onnx.ModelProto)
    return quantized


def _range_estimator(ptq: Ptq) -> Any:
    """NNCF's estimator of activation ranges; None for its own choice."""
    from nncf.quantization.range_estimator import (  # noqa: PLC0415 - imports all of nncf
        AggregatorType,
        RangeEstimatorParameters,
        RangeEstimatorParametersSet,
        StatisticsCollectorParameters,
        StatisticsType,
    )

    if ptq.activation_range == "min_max":
        return RangeEstimatorParametersSet.MINMAX
    if ptq.activation_range == "mean":
        return RangeEstimatorParametersSet.MEAN_MINMAX
    if ptq.activation_range == "percentile":
        quantile = StatisticsCollectorParameters(
            statistics_type=StatisticsType.QUANTILE,
            aggregator_type=AggregatorType.MEAN,
            quantile_outlier_prob=1 - ptq.percentile / 100,
        )
        return RangeEstimatorParameters(min=quantile, max=quantile)
    return None
