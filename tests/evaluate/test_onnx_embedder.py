import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mfn_compile.errors import BadInputError
from mfn_compile.evaluate.onnx_embedder import OnnxRuntimeEmbedder
from mfn_compile.model.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(
    height=112, width=96, mean=(127.5, 127.5, 127.5), std=(128.0, 128.0, 128.0)
)
WEIGHTS = np.random.default_rng(0).normal(size=(5, 3, 1, 1)).astype(np.float32)


def write_network(path, batch, size=(112, 96)):
    """A pointwise convolution and a mean over the image."""
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, *size])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [batch, 5])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("batch", [1, 4, "N"])
@pytest.mark.parametrize("optimize", [True, False])
def test_any_batch_gives_every_image_its_embedding(tmp_path, batch, optimize):
    path = write_network(tmp_path / "toy.onnx", batch)
    embedder = OnnxRuntimeEmbedder(path, PREPROCESSING, optimize=optimize)
    crops = np.random.default_rng(1).integers(0, 256, (11, 112, 112, 3), dtype=np.uint8)
    pixels = (crops[:, :, 8:104].astype(np.float64) - 127.5) / 128
    expected = pixels.mean(axis=(1, 2)) @ WEIGHTS[:, :, 0, 0].T
    np.testing.assert_allclose(embedder.embed(crops), expected, atol=1e-4)


def test_threads_do_not_change_the_result(tmp_path):
    path = write_network(tmp_path / "toy.onnx", 1)
    crops = np.random.default_rng(1).integers(0, 256, (9, 112, 112, 3), dtype=np.uint8)
    one, many = (OnnxRuntimeEmbedder(path, PREPROCESSING, optimize=True, threads=n) for n in (1, 4))
    np.testing.assert_array_equal(one.embed(crops), many.embed(crops))
    assert one.key == many.key


def test_key_follows_the_file_the_engine_and_the_preprocessing(tmp_path):
    path = write_network(tmp_path / "a.onnx", 1)
    other = write_network(tmp_path / "b.onnx", "N")
    brighter = PREPROCESSING.model_copy(update={"mean": (100.0, 127.5, 127.5)})
    keys = {
        OnnxRuntimeEmbedder(path, PREPROCESSING, optimize=True).key,
        OnnxRuntimeEmbedder(path, PREPROCESSING, optimize=False).key,
        OnnxRuntimeEmbedder(path, brighter, optimize=True).key,
        OnnxRuntimeEmbedder(other, PREPROCESSING, optimize=True).key,
    }
    assert len(keys) == 4


@pytest.mark.parametrize("content", [b"", b"no network", None])
def test_a_file_that_is_no_network(tmp_path, content):
    path = tmp_path / "bad.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInputError, match=r"bad\.onnx"):
        OnnxRuntimeEmbedder(path, PREPROCESSING, optimize=True)


def test_another_input_size(tmp_path):
    path = write_network(tmp_path / "toy.onnx", 1, (112, 112))
    with pytest.raises(BadInputError, match="does not match"):
        OnnxRuntimeEmbedder(path, PREPROCESSING, optimize=True)
