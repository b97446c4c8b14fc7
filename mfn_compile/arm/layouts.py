"""What the kernels of a quantized convolution make, in which order, and in how many bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mfn_compile.arm.calls import padded, stored_channels
from mfn_compile.arm.graph import Conv, IntegerGraph
from mfn_compile.arm.kernels.simple import LANES
from mfn_compile.arm.strips import Sweep, Window


@dataclass(frozen=True)
class Part:
    """One kernel's share of a convolution.

    Attributes:
        result: the tensor that it makes, or the scratch buffer with the patches.
        sweep: the order in which it makes it.
        pixel: bytes of a pixel of the result.
        ring: bytes of the window's rows, which a depthwise kernel keeps by itself where the input
            is `padded` or comes in strips.
    """

    result: str
    sweep: Sweep
    pixel: int
    ring: int = 0
    padded: bool = False

    @property
    def bytes(self) -> int:
        """The whole result."""
        return self.sweep.pixels * self.pixel

    def in_strips(self, padding: int, rows: int) -> Part:
        """Of a depthwise kernel that reads its input itself, again for every window.

        Args:
            padding: bytes of what it reads outside of the image.
            rows: of the result that it makes at once.
        """
        window = self.sweep.window
        assert window is not None
        sweep = replace(
            self.sweep, grain=rows * self.sweep.width, window=replace(window, copied=False)
        )
        return replace(self, sweep=sweep, ring=padding, padded=True)

    def ring_bytes(self, strips: int) -> int:
        """Bytes of the ring, or of the operand that stands for it."""
        return self.ring if self.padded or strips > 1 else min(self.ring, LANES)


def parts_of(graph: IntegerGraph, node: Conv, tile: int) -> tuple[Part, ...]:
    """Depthwise kernel, matrix product, or patches and the product with them.

    Args:
        tile: rows of a tile of the matrix product.
    """
    tensor, out = graph.tensors[node.input], graph.tensors[node.output]
    window = Window(node.kernel[0], node.stride[0], node.padding[0], tensor.height, tensor.width)
    rows = Sweep(out.height, out.width, out.width, window)
    pixel = pixel_bytes(graph, node.output)
    if node.depthwise:
        width = tensor.width + node.padding[1] + node.padding[3]
        ring = node.kernel[0] * width * stored_channels(graph, tensor)
        return (Part(node.output, rows, pixel, ring, any(node.padding)),)
    product = Part(node.output, Sweep(out.height, out.width, tile), pixel)
    if is_pointwise(node) and stored_channels(graph, tensor) % LANES == 0:
        return (product,)
    depth = padded(node.kernel[0] * node.kernel[1] * tensor.channels)
    return (Part(f"{node.name}%patches", rows, depth), product)


def pixel_bytes(graph: IntegerGraph, name: str) -> int:
    """Bytes of a pixel of a tensor in memory."""
    tensor = graph.tensors[name]
    return stored_channels(graph, tensor) * (4 if tensor.dtype == "float32" else 1)


def tensor_bytes(graph: IntegerGraph, name: str) -> int:
    """Bytes of a tensor in memory."""
    tensor = graph.tensors[name]
    return tensor.height * tensor.width * pixel_bytes(graph, name)


def is_pointwise(node: Conv) -> bool:
    """A pixel of the result needs the same one of the input only."""
    return (
        not node.depthwise
        and node.kernel == (1, 1)
        and node.stride == (1, 1)
        and not any(node.padding)
    )
