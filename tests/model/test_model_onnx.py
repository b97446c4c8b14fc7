"""ONNX checkpoints: what is read from them and what is refused."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from mfn_compile.errors import BadInputError, UsageError
from mfn_compile.model.loader import load_checkpoint

from .replicas import Foamliu, InsightFacePytorch, Xiaoccer, randomize


def export(module, path, size=(112, 112), **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (torch.zeros(1, 3, *size),), str(path),
            dynamo=False, opset_version=17, **options,
        )  # fmt: skip
    return path


def tiny(nodes, initializers=(), inputs=None, outputs=None):
    """A model of a few nodes from x [1, 3, 112, 112] to y."""
    graph = helper.make_graph(
        nodes,
        "tiny",
        inputs or [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 112, 112])],
        outputs or [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", "D"])],
        initializer=list(initializers),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def weight(name="w", shape=(4, 3, 112, 112), value=0.01):
    return numpy_helper.from_array(np.full(shape, value, np.float32), name)


CONV = helper.make_node("Conv", ["x", "w"], ["m"], name="first")
FLAT = helper.make_node("Flatten", ["m"], ["y"], name="flat")


def refused(model, tmp_path):
    path = tmp_path / "model.onnx"
    if isinstance(model, bytes):
        path.write_bytes(model)
    else:
        onnx.save(model, str(path))
    with pytest.raises(BadInputError) as caught:
        load_checkpoint(path)
    assert "model.onnx" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("make", "size", "activations"),
    [
        (Foamliu, (112, 112), ("relu6", "relu")),
        (Xiaoccer, (112, 96), ("prelu",)),
        (InsightFacePytorch, (112, 112), ("prelu",)),
    ],
)
def test_same_numbers_as_the_state_dict(make, size, activations, tmp_path):
    replica = randomize(make())
    torch.save(replica.state_dict(), tmp_path / "w.pt")
    expected = load_checkpoint(tmp_path / "w.pt").info
    loaded = load_checkpoint(export(replica, tmp_path / "w.onnx", size))
    assert loaded.module is None
    assert loaded.onnx_path == tmp_path / "w.onnx"
    assert loaded.info.layout == "onnx"
    assert loaded.info.macs == expected.macs
    assert loaded.info.embedding_width == expected.embedding_width
    assert loaded.info.activations == activations
    assert (loaded.info.preprocessing.height, loaded.info.preprocessing.width) == size


def test_parameters_are_counted_once_and_without_statistics(tmp_path):
    replica = randomize(Xiaoccer())
    path = export(
        replica, tmp_path / "w.onnx", (112, 96), training=torch.onnx.TrainingMode.PRESERVE
    )
    assert any(n.op_type == "BatchNormalization" for n in onnx.load(str(path)).graph.node)
    expected = sum(p.numel() for p in replica.parameters())
    assert load_checkpoint(path).info.parameters == expected


def test_default_normalization_and_override(tmp_path):
    path = export(randomize(Foamliu()), tmp_path / "w.onnx")
    assert load_checkpoint(path).info.preprocessing.mean == (127.5,) * 3
    assert load_checkpoint(path).info.preprocessing.std == (127.5,) * 3
    loaded = load_checkpoint(path, preprocessing_override={"color": "BGR", "mean": 0, "std": 1})
    assert loaded.info.preprocessing.color == "BGR"
    assert loaded.info.preprocessing.std == (1, 1, 1)
    with pytest.raises(UsageError):
        load_checkpoint(path, bn_eps=1e-3)


def test_smallest_model_is_accepted(tmp_path):
    onnx.save(tiny([CONV, FLAT], [weight()]), str(tmp_path / "w.onnx"))
    info = load_checkpoint(tmp_path / "w.onnx").info
    assert (info.macs, info.parameters, info.embedding_width) == (150_528, 150_528, 4)


def test_initializer_that_is_also_an_input(tmp_path):
    model = tiny([CONV, FLAT], [weight()])
    model.graph.input.append(
        helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3, 112, 112])
    )
    onnx.save(model, str(tmp_path / "w.onnx"))
    assert load_checkpoint(tmp_path / "w.onnx").info.embedding_width == 4


def test_unsupported_operator_names_node_and_op(tmp_path):
    node = helper.make_node("Sigmoid", ["m"], ["s"], name="gate")
    flat = helper.make_node("Flatten", ["s"], ["y"])
    message = refused(tiny([CONV, node, flat], [weight()]), tmp_path)
    assert "Sigmoid" in message
    assert "'gate'" in message


def test_custom_domain(tmp_path):
    node = helper.make_node("Relu", ["m"], ["y"], name="own", domain="acme")
    assert "acme.Relu" in refused(tiny([CONV, node], [weight()]), tmp_path)


def test_two_inputs(tmp_path):
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 112, 112])
        for name in ("x", "z")
    ]
    model = tiny([CONV, FLAT], [weight()], inputs=inputs)
    assert "2 inputs (x, z)" in refused(model, tmp_path)


def test_two_outputs(tmp_path):
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", "D"]) for n in ("y", "m")]
    assert "2 outputs (y, m)" in refused(tiny([CONV, FLAT], [weight()], outputs=outputs), tmp_path)


@pytest.mark.parametrize(
    "shape",
    [[1, 112, 112, 3], [1, 3, 112], [8, 3, 112, 112], [1, 3, "h", 112], [1, 3, 224, 224]],
)
def test_input_shape(shape, tmp_path):
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    refused(tiny([CONV, FLAT], [weight()], inputs=inputs), tmp_path)


def test_integer_input(tmp_path):
    inputs = [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 3, 112, 112])]
    refused(tiny([CONV, FLAT], [weight()], inputs=inputs), tmp_path)


def test_output_that_is_a_map(tmp_path):
    conv = helper.make_node("Conv", ["x", "w"], ["y"], name="first")
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 1, 1])]
    assert "[N, D]" in refused(tiny([conv], [weight()], outputs=outputs), tmp_path)


def test_nan(tmp_path):
    message = refused(tiny([CONV, FLAT], [weight(value=np.nan)]), tmp_path)
    assert "NaN" in message
    assert ": w)" in message


def test_half_precision(tmp_path):
    half = numpy_helper.from_array(np.zeros((4, 3, 112, 112), np.float16), "w")
    assert "FLOAT16" in refused(tiny([CONV, FLAT], [half]), tmp_path)


def test_quantized(tmp_path):
    scale, zero = weight("scale", ()), numpy_helper.from_array(np.int8(0), "zero")
    quantize = helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], name="q0")
    message = refused(tiny([quantize, CONV, FLAT], [weight(), scale, zero]), tmp_path)
    assert "already quantized" in message


def test_external_data(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(
        tiny([CONV, FLAT], [weight()]), str(path),
        save_as_external_data=True, location="weights.bin", size_threshold=0,
    )  # fmt: skip
    with pytest.raises(BadInputError, match="another file"):
        load_checkpoint(path)


def test_no_convolution(tmp_path):
    assert "no convolution" in refused(tiny([helper.make_node("Flatten", ["x"], ["y"])]), tmp_path)


def test_old_opset(tmp_path):
    model = tiny([CONV, FLAT], [weight()])
    model.opset_import[0].version = 6
    assert "opset 6" in refused(model, tmp_path)


@pytest.mark.parametrize("content", [b"garbage", bytes(64), b"\x08\x08"])
def test_damaged(content, tmp_path):
    refused(content, tmp_path)


@pytest.mark.parametrize("part", [0.3, 0.98])
def test_truncated(part, tmp_path):
    content = export(randomize(Foamliu()), tmp_path / "w.onnx").read_bytes()
    refused(content[: int(part * len(content))], tmp_path)


def test_contradicting_output_shape(tmp_path):
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])]
    assert "damaged" in refused(tiny([CONV, FLAT], [weight()], outputs=outputs), tmp_path)
