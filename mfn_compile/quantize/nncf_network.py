"""A MobileFaceNet with NNCF's fake quantizers, and its way back to a QDQ file."""

from __future__ import annotations

import copy
import io
import warnings
from typing import Any

import numpy as np
import onnx
import onnxsim
import torch
from torch import Tensor, nn

from mfn_compile.model.network import MobileFaceNet
from mfn_compile.quantize.graph import Graph
from mfn_compile.quantize.layers import match_layers
from mfn_compile.quantize.onnxruntime_session import Floats
from mfn_compile.quantize.ptq import advanced_parameters
from mfn_compile.quantize.quiet import quiet_nncf
from mfn_compile.quantize.torch_kernels import use_torch_kernels
from mfn_compile.recipe import Recipe
from mfn_compile.target import OverflowFix

OPSET = 17


def fake_quantized(
    folded: MobileFaceNet, images: Floats, recipe: Recipe, overflow_fix: OverflowFix
) -> nn.Module:
    """A copy of `folded` with NNCF's quantizers, their ranges set by `images`.

    Args:
        folded: float network without BatchNorm, in eval mode.
        images: preprocessed calibration images float32 [N, 3, H, W].
        recipe: how to quantize.
        overflow_fix: what the device demands.

    Raises:
        BadInputError: the recipe names a layer that the network does not have.
    """
    ptq = recipe.ptq
    names = [name for name, module in folded.named_modules() if isinstance(module, nn.Conv2d)]
    ignored = [_nncf_name(name) for name in match_layers(ptq.float_layers, names)]
    use_torch_kernels()
    with quiet_nncf() as nncf:
        np.random.seed(recipe.calibration.seed)
        torch.manual_seed(recipe.calibration.seed)
        network: nn.Module = nncf.quantize(
            copy.deepcopy(folded),
            nncf.Dataset(range(len(images)), lambda i: torch.from_numpy(images[i : i + 1])),
            preset=nncf.QuantizationPreset(ptq.preset),
            subset_size=len(images),
            fast_bias_correction=True,  # training corrects what is left
            ignored_scope=nncf.IgnoredScope(names=ignored) if ignored else None,
            advanced_parameters=advanced_parameters(nncf, ptq, overflow_fix),
        )
    return network


def _nncf_name(module: str) -> str:
    """NNCF's name of a convolution's node: the module's path and the function it calls."""
    return f"{module.replace('.', '/')}/conv2d/0"


def is_range(parameter: str) -> bool:
    """Whether a parameter belongs to a quantizer, by its name in an NNCF network."""
    return "hook" in parameter


def to_qdq(network: nn.Module, image: Floats) -> onnx.ModelProto:
    """Strip NNCF's quantizers to native ones and export: int8 weights, float32 biases.

    Args:
        network: what `fake_quantized` returned, trained or not.
        image: a preprocessed image float32 [1, 3, H, W].
    """
    example = torch.from_numpy(image)
    with quiet_nncf() as nncf, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stripped = nncf.strip(
            copy.deepcopy(network), strip_format=nncf.StripFormat.NATIVE, example_input=example
        )
    model = _export(stripped, example)
    _store_weights_as_integers(model)
    return model


def float_network(network: nn.Module, folded: MobileFaceNet, image: Floats) -> onnx.ModelProto:
    """The network without its quantizers: the float weights that the integers round.

    Args:
        network: what `fake_quantized` returned, trained or not.
        folded: the network that it was made of.
        image: a preprocessed image float32 [1, 3, H, W].
    """
    plain = copy.deepcopy(folded)
    kept = plain.state_dict().keys()
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if k in kept})
    return _export(plain, torch.from_numpy(image))


def _export(module: nn.Module, example: Tensor) -> onnx.ModelProto:
    buffer: Any = io.BytesIO()  # torch takes a stream here, which its stubs do not say
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (example,),
            buffer,
            dynamo=False,
            opset_version=OPSET,
            input_names=["input"],
            output_names=["embedding"],
        )
    model: onnx.ModelProto
    model, same = onnxsim.simplify(onnx.load_model_from_string(buffer.getvalue()))
    assert same
    return model


def _store_weights_as_integers(model: onnx.ModelProto) -> None:
    """Run QuantizeLinear on constant weights now, as NNCF's ONNX quantizer does."""
    graph = Graph(model)
    kept = []
    for node in graph.nodes:
        if node.op_type != "QuantizeLinear" or not graph.has(node.input[0]):
            kept.append(node)
            continue
        weight = graph.array(node.input[0])
        scale, zero = graph.array(node.input[1]), graph.array(node.input[2])
        shape = (-1, *([1] * (weight.ndim - 1))) if scale.ndim else ()
        limits = np.iinfo(zero.dtype)
        levels = np.rint(weight / scale.reshape(shape)) + zero.reshape(shape)
        integers = np.clip(levels, limits.min, limits.max).astype(zero.dtype)
        name = f"{node.input[0]}_int8"
        model.graph.initializer.append(onnx.numpy_helper.from_array(integers, name))
        for consumer in graph.consumers[node.output[0]]:
            consumer.input[:] = [name if i == node.output[0] else i for i in consumer.input]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    initializers = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(initializers)


def embed(network: nn.Module, images: Floats, batch: int = 16) -> Floats:
    """Embeddings float32 [N, D] in eval mode, without gradients."""
    parts: list[Tensor] = []
    with torch.no_grad():
        for start in range(0, len(images), batch):
            parts.append(network(torch.from_numpy(images[start : start + batch])))
    found: Any = torch.cat(parts).numpy()
    return np.asarray(found, np.float32)
