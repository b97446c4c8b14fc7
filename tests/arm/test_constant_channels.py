"""Channels that no image can change: found, left out, and never missed in an embedding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mfn_compile.arm import oracle
from mfn_compile.arm.codegen import compile_network
from mfn_compile.arm.constant_channels import (
    channels_of,
    multiply_adds,
    without_constant_channels,
)
from mfn_compile.arm.graph import Conv, IntegerGraph, Requantize
from mfn_compile.arm.library import build_library
from mfn_compile.arm.ranges import ranges_of
from mfn_compile.target import load_target
from tests.arm import emulated
from tests.arm.graphs import LARGEST, Draft, Style, bits, graphs, images

Array = NDArray[Any]
EACH_SIDE = (1, 1, 1, 1)


def plant(node: Conv, channels: Array, value: int | None = None) -> Conv:
    """The convolution with `channels` [O] constant, by a multiplier that is tiny beside the bias.

    value: of these channels; their zero points by default.
    """
    stage = node.output_stage
    assert isinstance(stage, Requantize)
    zero = stage.zero_point if value is None else np.int8(value)
    low = stage.low if value is None else np.minimum(stage.low, value)
    high = stage.high if value is None else np.maximum(stage.high, value)
    planted = replace(
        stage,
        multiplier=np.where(channels, np.float32(1e-12), stage.multiplier).astype(np.float32),
        zero_point=np.where(channels, zero, stage.zero_point).astype(np.int8),
        low=np.where(channels, low, stage.low).astype(np.int8),
        high=np.where(channels, high, stage.high).astype(np.int8),
    )
    if stage.negative is not None:
        negative = np.where(channels, np.float32(1e-12), stage.negative)
        planted = replace(planted, negative=negative.astype(np.float32))
    return replace(node, output_stage=planted)


def plant_last(draft: Draft, channels: Array, value: int | None = None) -> str:
    """The same to the last node of a draft."""
    node = draft.nodes[-1]
    assert isinstance(node, Conv)
    return draft.change(**vars(plant(node, channels, value)))


def first(count: int, channels: int) -> Array:
    """The first `count` of `channels`."""
    return np.arange(channels) < count


def check(graph: IntegerGraph, rgb: Array) -> IntegerGraph:
    """The smaller graph; its embeddings, and the values of what is left, are the whole one's."""
    smaller = without_constant_channels(graph)
    assert [n.name for n in smaller.nodes] == [n.name for n in graph.nodes]
    assert without_constant_channels(smaller) is smaller
    for image in rgb:
        whole, ours = oracle.run(graph, image), oracle.run(smaller, image)
        assert np.array_equal(bits(ours[graph.output]), bits(whole[graph.output]))
        for name, value in ours.items():
            assert value.shape[2] == smaller.tensors[name].channels
            left = iter(np.moveaxis(whole[name], 2, 0))  # what is left is a subsequence
            assert all(any(np.array_equal(a, b) for b in left) for a in np.moveaxis(value, 2, 0))
    return smaller


def lost(graph: IntegerGraph) -> dict[str, int]:
    """Channels that every tensor loses, where it does."""
    smaller = check(graph, images(graph, 3))
    counts = {
        name: t.channels - smaller.tensors[name].channels for name, t in graph.tensors.items()
    }
    return {name: count for name, count in counts.items() if count}


@given(graph=graphs(), seed=st.integers(0, 2**32 - 1), share=st.sampled_from([0.3, 0.7, 1.0]))
@settings(max_examples=60, deadline=None)
def test_random_networks_keep_their_embeddings(
    graph: IntegerGraph, seed: int, share: float
) -> None:
    random = np.random.default_rng(seed)
    nodes = [
        plant(node, random.random(len(node.bias)) < share)
        if isinstance(node, Conv)
        and isinstance(node.output_stage, Requantize)
        and random.random() < 0.8
        else node
        for node in graph.nodes
    ]
    graph = replace(graph, nodes=tuple(nodes))
    ranges = ranges_of(graph)
    for image in images(graph, 3):
        for name, value in oracle.run(graph, image).items():
            if name in ranges:
                low, high = ranges[name]
                assert ((low <= value) & (value <= high)).all()
    check(graph, images(graph, 3))


def ended(draft: Draft, x: str) -> IntegerGraph:
    """A linear head over all of x."""
    return draft.graph(draft.conv(x, 8, draft.shape(x)[:2], to_float=True))


def block(*, stem: int = 0, depthwise: int = 0, style: Style | None = None) -> IntegerGraph:
    """Dense, depthwise, pointwise, head, with constant channels in the first two."""
    draft = Draft(5, style or Style(zero="each", pad="each"))
    x = draft.conv(draft.image(6, 5), 48, (3, 3), padding=EACH_SIDE)
    x = plant_last(draft, first(stem, 48))
    x = draft.conv(x, 0, (3, 3), padding=EACH_SIDE)
    x = plant_last(draft, first(depthwise, 48))
    return ended(draft, draft.conv(x, 24))


def test_a_depthwise_layer_and_what_it_reads_lose_the_same_channels() -> None:
    assert lost(block(depthwise=20)) == {"t1": 20, "t2": 20}
    assert lost(block(depthwise=16)) == {"t1": 16, "t2": 16}
    assert lost(block(stem=40, depthwise=20)) == {"t1": 20, "t2": 20}


@pytest.mark.parametrize("slope", ["usual", "wild"])
@pytest.mark.parametrize("bias", ["small", "extreme"])
def test_prelu_and_the_largest_sums(slope: str, bias: str) -> None:
    style = Style(slope=slope, bias=bias, zero="each")
    counts = lost(block(depthwise=33, style=style))
    assert counts["t1"] == counts["t2"] >= 33  # such sums make some constant by themselves


def test_nothing_goes_where_memory_would_hold_as_much() -> None:
    for graph in (block(), block(depthwise=15), block(stem=48)):
        assert without_constant_channels(graph) is graph


def test_one_channel_of_a_constant_tensor_stays() -> None:
    counts = {"t1": 47, "t2": 47, "t3": 23}  # what reads it is constant then
    assert lost(block(depthwise=48)) == counts


def test_a_constant_input_makes_a_depthwise_channel_constant_where_padding_agrees() -> None:
    draft = Draft(5)
    x = draft.conv(draft.image(6, 5), 48)
    x = plant_last(draft, first(20, 48), value=7)
    x = draft.conv(x, 0, (3, 3), padding=EACH_SIDE)
    pad = np.where(first(18, 48), 7, 8).astype(np.int8)
    draft.change(pad_value=pad)
    assert lost(ended(draft, x)) == {"t1": 18, "t2": 18}


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3)])
def test_padding_of_a_dense_layer_must_be_the_constant(kernel: tuple[int, int]) -> None:
    draft = Draft(5)
    x = draft.conv(draft.image(6, 5), 48)
    x = plant_last(draft, first(20, 48), value=-9)
    x = draft.conv(x, 24, kernel, padding=EACH_SIDE)
    draft.change(pad_value=np.where(first(17, 48), -9, 0).astype(np.int8))
    assert lost(ended(draft, x)) == {"t1": 17}
    free = Draft(5)
    x = free.conv(free.image(6, 5), 48)
    x = plant_last(free, first(20, 48), value=-9)
    assert lost(ended(free, free.conv(x, 24, kernel))) == {"t1": 20}


def test_channels_that_nobody_multiplies_go_too() -> None:
    draft = Draft(5)
    x = draft.conv(draft.image(6, 5), 48)
    x = draft.conv(x, 24)
    node = draft.nodes[-1]
    assert isinstance(node, Conv)
    draft.change(weight=np.where(first(30, 48), 0, node.weight).astype(np.int8))
    assert lost(ended(draft, x)) == {"t1": 30}


def test_every_reader_must_agree() -> None:
    draft = Draft(5)
    x = draft.conv(draft.image(6, 5), 48)
    x = plant_last(draft, first(20, 48))
    a, b = draft.conv(x, 24), draft.conv(x, 24)
    assert lost(ended(draft, draft.add(a, b))) == {"t1": 20}
    other = Draft(5)
    x = other.conv(other.image(6, 5), 48)
    x = plant_last(other, first(20, 48))
    graph = ended(other, other.add(other.conv(x, 24), other.conv(other.lookup(x), 24)))
    assert without_constant_channels(graph) is graph


@pytest.mark.parametrize("fused", [True, False])
def test_operands_of_residual_additions_stay(fused: bool) -> None:
    draft = Draft(5)
    x = draft.conv(draft.image(6, 5), 48)
    x = plant_last(draft, first(20, 48))
    y = draft.conv(x, 48, skip=x) if fused else draft.add(draft.conv(x, 48), x)
    graph = ended(draft, y)
    assert without_constant_channels(graph) is graph


def test_the_bias_takes_up_to_the_last_bit() -> None:
    draft = Draft(5, Style(weights="lowest", bias="zero"))
    x = draft.conv(draft.image(1, 1), 32)
    x = plant_last(draft, first(16, 32), value=-128)
    x = draft.conv(x, 8, to_float=True)
    draft.change(bias=np.full(8, LARGEST - 32 * 128 * 128, np.int32))
    graph = draft.graph(x)
    smaller = check(graph, images(graph, 2))
    last = smaller.nodes[-1]
    assert isinstance(last, Conv)
    assert (last.bias == LARGEST - 16 * 128 * 128).all()


def test_a_library_is_built_without_them_and_says_so() -> None:
    graph = block(depthwise=20)
    code = load_target("cortex-a53").code
    assert code is not None
    found = build_library(graph, code).constant
    assert found is not None
    smaller = without_constant_channels(graph)
    assert (found.dropped, found.channels) == (40, channels_of(graph))
    assert (found.whole_multiply_adds, found.multiply_adds) == (
        30 * (9 * 3 * 48 + 9 * 48 + 48 * 24 + 24 * 8),
        multiply_adds(smaller),
    )
    assert found.multiply_adds == 30 * (9 * 3 * 28 + 9 * 28 + 28 * 24 + 24 * 8)


@pytest.mark.parametrize("machine", [emulated.NEON, emulated.DOTPROD], ids=["neon", "dotprod"])
def test_code_without_them_computes_the_whole_network(
    machine: emulated.Machine, tmp_path: Any
) -> None:
    emulated.need_emulator()
    graph = block(depthwise=21, style=Style(zero="each", pad="each", limits="relu"))
    rgb = images(graph, 4)
    compiled = compile_network(without_constant_channels(graph), machine)
    jobs = [emulated.Job(compiled, rgb)]
    (result,) = emulated.run(emulated.build(jobs, tmp_path), jobs, machine.cpu)
    assert np.array_equal(bits(result.embeddings), bits(oracle.embed(graph, rgb)))
