"""Puts channels in an order in which four products add up in 16 bits in as many kernels as can be.

Which four do is a matter of where their channels lie (see `kernels/fours.py`). The order within a
tensor changes no value and no embedding: whoever writes the tensor and whoever reads it agree on
it. Kernels look at the weights themselves, so an order that helps little costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfn_compile.arm.calls import padded
from mfn_compile.arm.graph import Conv, IntegerGraph, Requantize, Residual, inputs_of
from mfn_compile.arm.kernels.gemm import MOST, added

Array = NDArray[Any]
Ints = NDArray[np.int64]
_TRIES = 12000  # swaps that are tried for a tensor: more hardly help, and it is a second's work
_TOO_LARGE = 50  # a sum that is, in units of how much it is: of 0 to 100 the best for two networks
_FOUR = 4


def ordered(graph: IntegerGraph) -> IntegerGraph:
    """The graph with the same embeddings; nodes, their names and their order stay."""
    roots = _roots(graph)
    orders: dict[str, Ints] = {}
    heavy: dict[str, set[int]] = {}  # channels whose own sums do not fit, by root
    for root, readers in _readers(graph, roots).items():
        weights = np.concatenate([_matrix(node) for node in readers])
        order = _search(np.abs(weights), sorted(heavy.get(root, ())))
        orders[root] = order
        for node in readers:
            fit = (_added(_matrix(node)[:, order]) <= MOST).all(axis=1)
            heavy.setdefault(roots.get(node.output, ""), set()).update(
                np.flatnonzero(~fit).tolist()
            )
    return _applied(graph, {name: orders[root] for name, root in roots.items() if root in orders})


def _roots(graph: IntegerGraph) -> dict[str, str]:
    """For each tensor whose order is free, one of those that share the order with it."""
    parent = {name: name for name in graph.tensors}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    fixed = {graph.output}
    for node in graph.nodes:
        if not isinstance(node, Conv) or not isinstance(node.output_stage, Requantize):
            fixed |= {node.output, *(() if isinstance(node, Conv) else inputs_of(node))}
        elif node.residual_input is not None:
            parent[root(node.output)] = root(node.residual_input)
        if isinstance(node, Conv) and node.depthwise:
            parent[root(node.output)] = root(node.input)
    bound = {root(name) for name in fixed}
    return {name: root(name) for name in graph.tensors if root(name) not in bound}


def _readers(graph: IntegerGraph, roots: Mapping[str, str]) -> dict[str, list[Conv]]:
    """The matrix products that read tensors of each root, roots in the network's order."""
    found: dict[str, list[Conv]] = {}
    for node in graph.nodes:
        if not isinstance(node, Conv) or node.input not in roots:
            continue
        if node.kernel == (1, 1) and not node.depthwise:
            found.setdefault(roots[node.input], []).append(node)
    return found


def _matrix(node: Conv) -> Ints:
    """int64 [O, I]."""
    return node.weight[:, 0, 0, :].astype(np.int64)


def _added(weights: Ints) -> Ints:
    """Sums of absolute weights that meet in 16 bits, [O, groups]."""
    channels = weights.shape[1]
    wide = np.pad(np.abs(weights), ((0, 0), (0, padded(channels) - channels)))
    return added(wide)


def _groups(channels: int) -> Ints:
    """Places whose products meet, [groups, 4]; -1 where there are fewer, or no channel."""
    depth = padded(channels)
    begin = depth % 32
    short = np.arange(begin).reshape(-1, 2, 8).transpose(0, 2, 1).reshape(-1, 2)
    short = np.pad(short, ((0, 0), (0, 2)), constant_values=-1)
    rest = np.arange(begin, depth).reshape(-1, _FOUR, 8).transpose(0, 2, 1).reshape(-1, _FOUR)
    found = np.concatenate([short, rest])
    return np.where(found < channels, found, -1)


def _search(weights: Ints, last: Sequence[int]) -> Ints:
    """An order of the channels in which few groups of few rows are too large.

    It begins with the given order and swaps two channels where that leaves no more than before.

    Args:
        weights: absolute, int64 [O, I].
        last: channels that are to stay behind the others.
    """
    channels = weights.shape[1]
    behind = np.isin(np.arange(channels), last)
    order = np.argsort(behind, kind="stable")
    if channels < 32:
        return order
    border = channels - len(last)
    places = _groups(channels)
    columns = np.vstack([weights.T, np.zeros_like(weights[:, 0])])  # place -1 has no weights
    sums = columns[np.where(places < 0, channels, order[places])].sum(axis=1)
    cost = _excess(sums)
    for one, two in _tries(places, cost):
        a, b = places[one], places[two]
        if a < 0 or b < 0 or ((a < border) != (b < border)):
            continue
        moved = columns[order[b]] - columns[order[a]]
        here, there = one[0], two[0]
        after = np.array([sums[here] + moved, sums[there] - moved])
        spent = _excess(after)
        if spent.sum() <= cost[here] + cost[there]:
            sums[[here, there]], cost[[here, there]] = after, spent
            order[a], order[b] = order[b], order[a]
    return order


def _tries(places: Ints, cost: Ints) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Places in two groups, of which the first is too large, until none is."""
    drawn = np.random.default_rng(0).random((_TRIES, 4))
    for first, second, one, two in drawn:
        large = np.flatnonzero(cost)
        if not large.size:
            return
        here, there = int(large[int(first * large.size)]), int(second * len(places))
        if here != there:
            yield (here, int(one * _FOUR)), (there, int(two * _FOUR))


def _excess(sums: Ints) -> Ints:
    """What is too much in all rows, [groups]: above all that it is, and then how much."""
    large = sums > MOST
    found: Ints = np.where(large, sums - MOST + _TOO_LARGE, 0).sum(axis=-1)
    return found


def _applied(graph: IntegerGraph, orders: Mapping[str, Ints]) -> IntegerGraph:
    nodes = []
    for node in graph.nodes:
        if isinstance(node, Conv):
            if node.input in orders and not node.depthwise:
                order = orders[node.input]
                node = replace(
                    node,
                    weight=np.ascontiguousarray(node.weight[..., order]),
                    pad_value=node.pad_value[order],
                )
            if node.output in orders:
                node = _with_outputs(node, orders[node.output])
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes))


def _with_outputs(node: Conv, order: Ints) -> Conv:
    residual = node.residual
    if residual is not None:
        residual = Residual(
            residual.scale_a[order],
            residual.scale_b[order],
            residual.offset[order],
            _taken(residual.output, order),
        )
    stage = node.output_stage
    assert isinstance(stage, Requantize)
    weight = node.weight[..., order] if node.depthwise else node.weight[order]
    return replace(
        node,
        weight=np.ascontiguousarray(weight),
        bias=node.bias[order],
        pad_value=node.pad_value[order] if node.depthwise else node.pad_value,
        output_stage=_taken(stage, order),
        residual=residual,
    )


def _taken(stage: Requantize, order: Ints) -> Requantize:
    fields: dict[str, Any] = {
        name: None if value is None else value[order] for name, value in vars(stage).items()
    }
    return Requantize(**fields)
