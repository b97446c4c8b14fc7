"""The end of foreign graphs, in the spellings that torch's exporter does not produce."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, checker, helper, numpy_helper

from mfn_compile.export.naming import module_name, name_missing, rename_tensors
from mfn_compile.export.rewrite import drop_l2_norm, linear_to_convolution

RNG = np.random.default_rng(0)


def constant(name, *shape, low=-1.0):
    return numpy_helper.from_array(RNG.uniform(low, 1, shape).astype(np.float32), name)


def graph(nodes, *constants, shape=(1, 3, 2, 2), width=4):
    """`nodes` behind a Relu, from x to y."""
    return helper.make_model(
        helper.make_graph(
            [helper.make_node("Relu", ["x"], ["r"]), *nodes],
            "tail",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, width])],
            initializer=list(constants),
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


def run(model):
    x = np.random.default_rng(1).standard_normal((1, 3, 2, 2), np.float32)
    return ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]


def ops(model):
    return [node.op_type for node in model.graph.node]


FLATTEN = helper.make_node("Flatten", ["r"], ["f"])
NORM = [constant(n, 4, low=0.5 if n == "var" else -1.0) for n in ("g", "b", "mean", "var")]
SPELLINGS = {
    "matmul": [helper.make_node("MatMul", ["f", "w"], ["y"])],
    "matmul, bias": [
        helper.make_node("MatMul", ["f", "w"], ["m"]),
        helper.make_node("Add", ["bias", "m"], ["y"]),
    ],
    "matmul, bias, batchnorm": [
        helper.make_node("MatMul", ["f", "w"], ["m"]),
        helper.make_node("Add", ["m", "bias"], ["a"]),
        helper.make_node("BatchNormalization", ["a", "g", "b", "mean", "var"], ["y"], epsilon=0.1),
    ],
    "gemm": [helper.make_node("Gemm", ["f", "w", "bias"], ["y"], alpha=0.5, beta=3.0)],
    "gemm without bias": [helper.make_node("Gemm", ["f", "w"], ["y"])],
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_linear_becomes_convolution(spelling):
    model = graph([FLATTEN, *SPELLINGS[spelling]], constant("w", 12, 4), constant("bias", 4), *NORM)
    expected = run(model)
    linear_to_convolution(model)
    checker.check_model(model, full_check=True)
    assert ops(model) == ["Relu", "Conv", "Flatten"]
    assert len(model.graph.initializer) == 2
    np.testing.assert_allclose(run(model), expected, rtol=1e-5, atol=1e-6)


def test_transposed_gemm_behind_a_reshape():
    nodes = [
        helper.make_node("Reshape", ["r", "shape"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "bias"], ["y"], transB=1),
    ]
    shape = numpy_helper.from_array(np.array([-1, 12]), "shape")
    model = graph(nodes, constant("w", 4, 12), constant("bias", 4), shape)
    expected = run(model)
    linear_to_convolution(model)
    assert ops(model) == ["Relu", "Conv", "Flatten"]
    np.testing.assert_allclose(run(model), expected, rtol=1e-5, atol=1e-6)


def test_sum_with_another_branch_is_no_bias():
    nodes = [
        FLATTEN,
        helper.make_node("MatMul", ["f", "w"], ["m"]),
        helper.make_node("Relu", ["m"], ["n"]),
        helper.make_node("Add", ["m", "n"], ["y"]),
    ]
    model = graph(nodes, constant("w", 12, 4))
    expected = run(model)
    linear_to_convolution(model)
    assert ops(model) == ["Relu", "Conv", "Flatten", "Relu", "Add"]
    np.testing.assert_allclose(run(model), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "nodes",
    [
        [helper.make_node("LpNormalization", ["f"], ["y"], axis=1, p=2)],
        [
            helper.make_node("ReduceL2", ["f"], ["l"], axes=[1]),
            helper.make_node("Clip", ["l", "tiny"], ["c"]),
            helper.make_node("Div", ["f", "c"], ["y"]),
        ],
    ],
    ids=["LpNormalization", "ReduceL2"],
)
def test_l2_norm_is_dropped(nodes):
    model = graph([FLATTEN, *nodes], numpy_helper.from_array(np.float32(1e-12), "tiny"), width=12)
    expected = run(model)
    assert drop_l2_norm(model)
    checker.check_model(model, full_check=True)
    assert ops(model) == ["Relu", "Flatten"]
    assert not model.graph.initializer
    actual = run(model)
    np.testing.assert_allclose(actual / np.linalg.norm(actual), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "nodes",
    [
        [helper.make_node("LpNormalization", ["f"], ["y"], axis=1, p=1)],
        [helper.make_node("Div", ["f", "two"], ["y"])],
        [helper.make_node("Relu", ["f"], ["y"])],
    ],
)
def test_other_endings_stay(nodes):
    model = graph([FLATTEN, *nodes], numpy_helper.from_array(np.float32(2), "two"), width=12)
    before = model.SerializeToString()
    assert not drop_l2_norm(model)
    linear_to_convolution(model)
    assert model.SerializeToString() == before


@pytest.mark.parametrize(
    ("name", "op", "expected"),
    [
        ("/stem/conv/Conv", "Conv", "stem.conv"),
        ("/blocks/blocks.10/expand/act/PRelu", "PRelu", "blocks.10.expand.act"),
        ("/blocks/blocks.1/Add", "Add", "blocks.1.add"),
        ("/Flatten", "Flatten", "flatten"),
    ],
)
def test_module_names(name, op, expected):
    assert module_name(name, op) == expected


def test_missing_and_double_names():
    model = graph([FLATTEN, helper.make_node("Identity", ["f"], ["y"])], width=12)
    model.graph.node[0].name = model.graph.node[1].name = "same"
    model.graph.node[2].name = "Flatten_1"
    name_missing(model)
    assert [n.name for n in model.graph.node] == ["same", "Flatten_1", "Identity_2"]


def test_rename_makes_way():
    model = graph([FLATTEN, helper.make_node("Identity", ["f"], ["y"])], width=12)
    rename_tensors(model, {"x": "f"})
    assert model.graph.input[0].name == "f"
    assert [list(n.output) for n in model.graph.node] == [["r"], ["f_"], ["y"]]
    checker.check_model(model)
