"""The oracle's arithmetic against exact rational numbers, and the integers of layers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfn_compile.arm import integers, oracle
from mfn_compile.arm.graph import (
    Add,
    Conv,
    FloatConv,
    Lookup,
    Normalize,
    Quantize,
    Requantize,
    Residual,
    ToFloat,
)
from mfn_compile.arm.reader import read_graph
from mfn_compile.arm.values import Activation, no_activation
from mfn_compile.errors import BadInputError
from tests.arm.qdq_files import PREPROCESSING, images, plain

INT8 = st.integers(-128, 127)
INT32 = st.integers(-(2**31), 2**31 - 1)
SCALES = st.floats(2.0**-20, 2.0**4, width=32)
NARROW = {"width": 32, "allow_nan": False, "allow_infinity": False}


def half_even(value: Fraction) -> int:
    below = value.numerator // value.denominator
    rest = value - below
    up = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and below % 2 == 1)
    return below + up


def to_float32(value: Fraction) -> Fraction:
    """The nearest float32, ties to even; values below 2**127 only."""
    bits = value.numerator.bit_length() - value.denominator.bit_length()
    exponent = max(bits - 25, -149)
    while abs(value) >= Fraction(2) ** (exponent + 24):
        exponent += 1
    unit = Fraction(2) ** exponent
    return half_even(value / unit) * unit


def column(value: float, dtype: type = np.float32) -> np.ndarray:
    return np.array([value], dtype)


def stage(multiplier: float, negative: float | None, zero: int, low: int, high: int) -> Requantize:
    slope = None if negative is None else column(negative)
    ends = (column(v, np.int8) for v in (zero, low, high))
    return Requantize(column(multiplier), slope, *ends)


def slow_requantize(accumulator: int, given: Requantize) -> int:
    negative = given.negative is not None and accumulator < 0
    chosen = given.negative if negative else given.multiplier
    assert chosen is not None
    multiplier = Fraction(float(chosen[0]))
    rounded = half_even(to_float32(to_float32(Fraction(accumulator)) * multiplier))
    return min(max(rounded + int(given.zero_point[0]), int(given.low[0])), int(given.high[0]))


@given(
    accumulator=INT32 | st.integers(-40000, 40000),
    multiplier=st.floats(0, 2, width=32) | st.sampled_from([0.5, 0.25, 1.5]),
    negative=st.none() | st.floats(-2, 2, width=32),
    zero=INT8, low=INT8, high=INT8,
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_requantization_is_the_sentence_of_the_contract(
    accumulator: int, multiplier: float, negative: float | None, zero: int, low: int, high: int
) -> None:
    given_stage = stage(multiplier, negative, zero, min(low, high), max(low, high))
    found = oracle.finish(column(accumulator, np.int32), given_stage)
    assert found.dtype == np.int8
    assert int(found[0]) == slow_requantize(accumulator, given_stage)


@given(a=st.floats(**NARROW), b=st.floats(**NARROW), c=st.floats(**NARROW))
@settings(max_examples=500, deadline=None)
def test_fused_multiply_add_rounds_once(a: float, b: float, c: float) -> None:
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    found = oracle.fused_multiply_add(column(a), column(b), column(c))
    if abs(exact) < 2**127:
        assert Fraction(float(found[0])) == to_float32(exact)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_fused_multiply_add_where_rounding_twice_is_wrong(data: st.DataObject) -> None:
    # a float32 tie plus something too small for a double to see
    high = data.draw(st.integers(2**23, 2**24 - 1))
    tiny = data.draw(st.sampled_from([-1, 1])) * 2.0 ** -data.draw(st.integers(30, 60))
    a, b = np.float32(2 * high + 1), np.float32(0.5)  # may itself be rounded: then no tie
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(tiny)
    found = oracle.fused_multiply_add(column(a), column(b), column(tiny))
    assert Fraction(float(found[0])) == to_float32(exact)


def test_rounding_in_double_first_would_be_wrong() -> None:
    # 4097 squared lies half way between two float32 numbers; a double does not see the addend
    found = oracle.fused_multiply_add(column(4097.0), column(4097.0), column(2.0**-60))
    exact = Fraction(4097) ** 2 + Fraction(1, 2**60)
    assert Fraction(float(found[0])) == to_float32(exact)
    assert found[0] != np.float32(np.float64(4097.0**2) + 2.0**-60)


def residual_of(
    scales: tuple[float, float], zeros: tuple[int, int], output: tuple[float, int]
) -> Residual:
    return integers.residual(
        (column(scales[0]), column(scales[1])),
        (column(zeros[0], np.int8), column(zeros[1], np.int8)),
        no_activation(1),
        (column(output[0]), column(output[1], np.int8)),
        "test",
    )


@given(sa=SCALES, sb=SCALES, so=SCALES, za=INT8, zb=INT8, zo=INT8)
@settings(max_examples=300, deadline=None)
def test_residual_never_overflows_and_is_close(
    sa: float, sb: float, so: float, za: int, zb: int, zo: int
) -> None:
    found = residual_of((sa, sb), (za, zb), (so, zo))
    scale_a, scale_b, offset = (int(v[0]) for v in (found.scale_a, found.scale_b, found.offset))
    assert offset == -(za * scale_a + zb * scale_b)
    assert 128 * (abs(scale_a) + abs(scale_b)) * 2 + abs(offset) < 2**31
    unit = Fraction(float(found.output.multiplier[0]))
    for scale, given_scale in ((scale_a, sa), (scale_b, sb)):
        wanted = Fraction(given_scale) / Fraction(so)
        largest = max(Fraction(sa), Fraction(sb)) / Fraction(so)
        assert abs(scale * unit - wanted) <= largest * Fraction(1, 2**20)


@given(
    ma=st.integers(1, 15), mb=st.integers(1, 15), mo=st.integers(1, 15),
    ea=st.integers(-3, 3), eb=st.integers(-3, 3), eo=st.integers(-1, 3),
    za=INT8, zb=INT8, zo=INT8, a=INT8, b=INT8,
)  # fmt: skip
@settings(max_examples=500, deadline=None)
def test_residual_of_short_scales_is_exact_and_keeps_ties(
    ma: int, mb: int, mo: int, ea: int, eb: int, eo: int,
    za: int, zb: int, zo: int, a: int, b: int,
) -> None:  # fmt: skip
    sa, sb, so = (m * 2.0**e for m, e in ((ma, ea - 8), (mb, eb - 8), (mo, eo - 7)))
    found = residual_of((sa, sb), (za, zb), (so, zo))
    result = oracle.add(found, column(a, np.int8), column(b, np.int8))
    total = (a - za) * Fraction(sa) + (b - zb) * Fraction(sb)
    wanted = half_even(total / Fraction(so)) + zo
    assert int(result[0]) == min(max(wanted, -128), 127)


@given(seed=st.integers(0, 2**32 - 1), slope=st.booleans(), zero=INT8)
@settings(max_examples=60, deadline=None)
def test_integers_of_a_layer_stand_for_its_floats(seed: int, slope: bool, zero: int) -> None:
    random = np.random.default_rng(seed)
    weight = random.integers(-128, 128, (6, 4, 3, 3))
    unit = 2.0 ** random.uniform(-40, 2, 6) * random.choice([-1, 1, 0], 6)
    bias = random.normal(size=6) * 2.0 ** random.uniform(-20, 20, 6)
    zeros = np.full(4, zero, np.int8)
    found, offset, fine = integers.layer_integers(weight, unit, bias, zeros, "test")
    assert found.dtype == np.int8
    assert (fine > 0).all()
    reach = np.abs(offset.astype(np.int64)) + 128 * np.abs(found.astype(np.int64)).sum((1, 2, 3))
    assert (reach < 2**31).all()
    image = random.integers(-128, 128, (4, 3, 3))
    exact = ((image - zero) * weight).sum((1, 2, 3)) * unit + bias
    got = ((image * found).sum((1, 2, 3)) + offset) * fine
    # half a unit of the bias, and half a step of each weight where the channel was coarsened
    assert (np.abs(got - exact) <= fine * (0.51 + 256 * 36 * 0.5 * (found != weight).any((1, 2, 3)))
            + 1e-9 * np.abs(exact)).all()  # fmt: skip


def test_an_accumulator_that_could_overflow_is_refused() -> None:
    weight = np.full((1, 2**18, 1, 1), 127)
    zeros = np.zeros(2**18, np.int8)
    with pytest.raises(BadInputError, match="could leave 32 bits") as caught:
        integers.layer_integers(weight, np.ones(1), np.zeros(1), zeros, "node 'x', Conv")
    assert "node 'x', Conv" in str(caught.value)


def test_scales_beyond_float32_are_refused() -> None:
    with pytest.raises(BadInputError, match="beyond float32"):
        integers.to_float(np.array([1e39]), no_activation(1), "x")


def test_dense_and_depthwise_convolutions_by_hand() -> None:
    random = np.random.default_rng(3)
    image = random.integers(-128, 128, (5, 6, 4)).astype(np.int8)
    for depthwise, shape in ((False, (7, 3, 2, 4)), (True, (3, 2, 4))):
        outputs = 4 if depthwise else 7
        node = Conv(
            "c", "x", "y", random.integers(-128, 128, shape).astype(np.int8),
            random.integers(-999, 999, outputs).astype(np.int32), depthwise,
            np.arange(4, dtype=np.int8), (2, 1), (1, 0, 1, 1),
            ToFloat(np.ones(outputs, np.float32), None, *no_bounds(outputs)),
        )  # fmt: skip
        found = oracle.accumulate(node, image)
        assert node.kernel == (3, 2)
        assert found.shape == (3, 6, outputs)
        for row, col, out in ((0, 0, 0), (2, 5, 3), (1, 3, 1)):
            total = int(node.bias[out])
            for y in range(3):
                for x in range(2):
                    at = (2 * row + y - 1, col + x)
                    inside = 0 <= at[0] < 5 and 0 <= at[1] < 6
                    pixel = image[at] if inside else node.pad_value
                    if depthwise:
                        total += int(pixel[out]) * int(node.weight[y, x, out])
                    else:
                        total += int(pixel.astype(int) @ node.weight[out, y, x].astype(int))
            assert found[row, col, out] == total


def no_bounds(channels: int) -> tuple[np.ndarray, np.ndarray]:
    open_ended: Activation = no_activation(channels)
    return open_ended.low, open_ended.high


def test_float_convolution_order_and_activation() -> None:
    random = np.random.default_rng(5)
    image = random.normal(size=(4, 4, 3)).astype(np.float32)
    for depthwise, shape in ((False, (2, 3, 3, 3)), (True, (3, 3, 3))):
        outputs = 3 if depthwise else 2
        weight = random.normal(size=shape).astype(np.float32)
        bias = random.normal(size=outputs).astype(np.float32)
        slope = np.full(outputs, 0.25, np.float32)
        low, high = np.full(outputs, -0.5, np.float32), np.full(outputs, 2, np.float32)
        node = FloatConv(
            "f", "x", "y", weight, bias, depthwise, (1, 1), (1, 1, 1, 1), slope, low, high
        )
        found = oracle.run_node(node, {"x": image})
        total = Fraction(float(bias[1]))
        padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
        for y in range(3):
            for x in range(3):
                for channel in [1] if depthwise else range(3):
                    value = weight[y, x, 1] if depthwise else weight[1, y, x, channel]
                    pixel = Fraction(float(padded[y, 2 + x, channel]))
                    total = to_float32(pixel * Fraction(float(value)) + total)
        total = to_float32(total * Fraction(1, 4)) if total < 0 else total
        assert Fraction(float(found[0, 2, 1])) == min(max(total, Fraction(-1, 2)), Fraction(2))


def test_small_nodes() -> None:
    table = np.arange(512).reshape(2, 256).astype(np.int8)
    codes = np.array([[[-128, 127]]], np.int8)
    found = oracle.run_node(Lookup("l", "x", "y", table), {"x": codes})
    assert found.tolist() == [[[table[0, 0], table[1, 255]]]]
    node = Quantize("q", "x", "y", column(0.5), column(1, np.int8))
    floats = np.array([[[0.25], [0.75], [-1e30], [1e30]]], np.float32)
    assert oracle.run_node(node, {"x": floats}).ravel().tolist() == [1, 3, -128, 127]
    added = Add("a", "x", "x", "y", residual_of((1.0, 1.0), (0, 0), (2.0, 0)))
    assert oracle.run_node(added, {"x": codes}).tolist() == codes.tolist()
    vector = np.array([[[3.0, 4.0]]], np.float32)
    unit = oracle.run_node(Normalize("n", "x", "y", 1e-12), {"x": vector})
    assert unit.ravel().tolist() == [np.float32(0.6), np.float32(0.8)]
    zero = oracle.run_node(Normalize("n", "x", "y", 1e-12), {"x": np.zeros_like(vector)})
    assert not zero.any()


def test_embed_and_run_agree() -> None:
    graph = read_graph(plain(1), PREPROCESSING)
    rgb = images(2)
    tensors = oracle.run(graph, rgb[1])
    embeddings = oracle.embed(graph, rgb)
    assert embeddings.shape == (2, graph.embedding)
    assert np.array_equal(embeddings[1], tensors[graph.output].ravel())
    again = oracle.run_quantized(graph, tensors[graph.nodes[0].output])
    assert all(np.array_equal(again[name], value) for name, value in tensors.items())
    for name, tensor in graph.tensors.items():
        assert tensors[name].shape == (tensor.height, tensor.width, tensor.channels)
        assert tensors[name].dtype == tensor.dtype


@pytest.mark.parametrize("widest", [127, -128, 63, -64, 1, 0])
def test_room_in_int8_is_used_for_the_bias(widest: int) -> None:
    weight = np.full((1, 4, 1, 1), widest)
    args = weight, np.array([2.0**-6]), np.array([0.7071]), np.zeros(4, np.int8), "x"
    found, bias, unit = integers.layer_integers(*args)
    assert np.array_equal(found.astype(np.float64) * unit, weight * 2.0**-6)
    assert abs(bias[0] * unit[0] - 0.7071) <= unit[0] / 2
    assert unit[0] <= 2.0**-6 * max(abs(widest + 0.5) + 0.5, 1) / 128
    whole = integers.layer_integers(weight, np.array([2.0**-6]), np.array([0.75]), *args[3:])
    assert np.array_equal(whole[0], weight)  # nothing to gain: the weights stay as they are


def test_a_bias_between_coarse_steps_is_refused() -> None:
    with pytest.raises(BadInputError, match="finer than its accumulator"):
        integers.check_bias(np.array([0.4]), np.array([1.0]), column(0.125), "node 'x', Conv")
    integers.check_bias(np.array([0.4]), np.array([1.0]), column(0.5), "node 'x', Conv")
