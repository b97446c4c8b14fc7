"""Blocks of layers that can be computed strip by strip, and in how many rows at a time."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from mfn_compile.arm.graph import Conv, IntegerGraph, Requantize, inputs_of
from mfn_compile.arm.kernels import gemm
from mfn_compile.arm.kernels.knobs import Key
from mfn_compile.arm.layouts import is_pointwise, parts_of, tensor_bytes
from mfn_compile.arm.schedules import Schedules
from mfn_compile.arm.strips import schedule

Block = tuple[Conv, ...]
WORKSPACE = 300_000  # bytes that an untuned network's blocks may need, about


def blocks(graph: IntegerGraph) -> tuple[Block, ...]:
    """Neighbouring convolutions, as many as there are between two small tensors.

    Only the next layer reads what is inside of a block. A block ends where tensors, having become
    smaller, grow again: what it makes is kept whole, so that should be as little as possible. In a
    MobileFaceNet these are the inverted residuals, the first one with the layers in front of it.
    """
    readers = Counter(name for node in graph.nodes for name in inputs_of(node))
    found: list[list[Conv]] = [[]]
    for node in graph.nodes:
        block = found[-1]
        if block and not _continues(graph, block, node, readers):
            found.append([])
        if isinstance(node, Conv):
            found[-1].append(node)
    return tuple(
        tuple(block) for block in found if len(block) > 1 and any(node.depthwise for node in block)
    )


def candidates(graph: IntegerGraph) -> dict[str, tuple[int, ...]]:
    """Numbers of rows to choose from, by the name of each block's first layer; 0 is unfused.

    One for each number of strips, the smallest that makes no more.
    """
    found = {}
    for block in blocks(graph):
        height = graph.tensors[block[-1].output].height
        rows = {-(-height // strips) for strips in range(2, height + 1)}
        found[block[0].name] = (0, *sorted(rows))
    return found


def default_rows(graph: IntegerGraph, tile: int, limit: int = WORKSPACE) -> dict[str, int]:
    """The choice for a network that nobody tuned: the fewest strips in `limit` bytes.

    A block that fits without is not fused. Where one does not fit at all, all may need as much as
    it does at its smallest.

    Args:
        tile: rows of a tile of the matrix product.
    """
    found = candidates(graph)
    needs = {
        block[0].name: {
            rows: block_bytes(graph, block, rows, tile) for rows in found[block[0].name]
        }
        for block in blocks(graph)
    }
    limit = max([limit, *(min(each.values()) for each in needs.values())])
    fitting = {
        name: [rows for rows, size in each.items() if size <= limit] for name, each in needs.items()
    }
    return {name: 0 if 0 in rows else max(rows) for name, rows in fitting.items()}


def strips_of(graph: IntegerGraph, schedules: Schedules) -> dict[str, int]:
    """Rows at a time of every block, by the name of its first layer: tuned, else the default."""
    default = default_rows(graph, gemm.TILES[schedules.isa].rows)
    values = candidates(graph)
    return {
        (name := block[0].name): schedules.rows(key_of(graph, block), values[name], default[name])
        for block in blocks(graph)
    }


def fitting(graph: IntegerGraph, block: Block, tile: int, limit: int = WORKSPACE) -> list[int]:
    """Candidates of a block that need no more than `limit` bytes, or the one that needs least."""
    needs = {
        rows: block_bytes(graph, block, rows, tile) for rows in candidates(graph)[block[0].name]
    }
    limit = max(limit, min(needs.values()))
    return [rows for rows, size in needs.items() if size <= limit]


def key_of(graph: IntegerGraph, block: Block) -> Key:
    """What the rows of a block are looked up by: two blocks of one shape are one."""
    source, result = graph.tensors[block[0].input], graph.tensors[block[-1].output]
    layers = "_".join(
        f"{'depthwise' if node.depthwise else 'dense'}{node.kernel[0]}s{node.stride[0]}"
        f"x{len(node.bias)}{'add' if node.residual_input else ''}"
        for node in block
    )
    sizes = {
        "height": source.height,
        "width": source.width,
        "inputs": source.channels,
        "outputs": result.channels,
    }
    name = f"block_{source.height}x{source.width}x{source.channels}_{layers}"
    return Key("block", name, sizes, {"layers": layers})


def block_bytes(graph: IntegerGraph, block: Block, rows: int, tile: int) -> int:
    """Bytes that a block needs when it is computed `rows` rows at a time, or 0: unfused.

    The plan of the whole network may need more, where tensors outlive the block.
    """
    skips = {node.residual_input for node in block if node.residual_input}
    if rows:
        return _bytes(graph, block, rows, tile, skips)
    heights = [(node, graph.tensors[node.output].height) for node in block]
    return max(_bytes(graph, (node,), height, tile, skips) for node, height in heights)


def _bytes(graph: IntegerGraph, nodes: Block, rows: int, tile: int, skips: set[str]) -> int:
    """Buffers, and the tensors that are whole; a sum takes the place of what it adds."""
    parts = [part for node in nodes for part in parts_of(graph, node, tile)]
    plan = schedule([part.sweep for part in parts], rows)
    buffers = sum(
        kept * part.sweep.width * part.pixel + part.ring_bytes(len(plan.made[0]))
        for kept, part in zip(plan.kept, parts, strict=True)
    )
    result = parts[-1].bytes if nodes[-1].residual_input else 0
    return buffers - result + sum(tensor_bytes(graph, name) for name in {nodes[0].input, *skips})


def _continues(graph: IntegerGraph, block: list[Conv], node: object, readers: Counter[str]) -> bool:
    """Whether a node can be part of the block, and makes it better."""
    last = block[-1]
    if not isinstance(node, Conv) or node.input != last.output or readers[last.output] > 1:
        return False
    if last.residual_input or last.output == graph.output:
        return False
    if not isinstance(last.output_stage, Requantize) or node.stride[0] > node.kernel[0]:
        return False
    if not (node.depthwise or is_pointwise(node)):
        return False
    names = (block[0].input, *(each.output for each in block))
    sizes = [tensor_bytes(graph, name) for name in names]
    falls = [b < a for a, b in pairwise(sizes) if a != b]
    grows = tensor_bytes(graph, node.output) > sizes[-1]
    return not (falls and falls[-1] and grows)
