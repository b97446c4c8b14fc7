"""Words of a program: kernel calls, their operands in memory, steps, and the whole program."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from mfn_compile.arm.graph import Input, IntegerGraph, Tensor
from mfn_compile.arm.kernels.simple import LANES
from mfn_compile.arm.schedules import Schedule

IMAGE = "%image"  # the caller's uint8 RGB
Array = NDArray[Any]


@dataclass(frozen=True)
class Place:
    """An operand in memory: `offset` bytes into a tensor or scratch buffer of the workspace."""

    buffer: str
    offset: int = 0


@dataclass(frozen=True)
class Constant:
    """An operand in .rodata, by its index in `Program.constants`."""

    index: int


@dataclass(frozen=True)
class Call:
    """One call of a kernel, by its symbol, for the units of work in `span` (begin, end).

    `layer` is the node that it works for, `kind` that of the kernel: see `Step`.
    """

    kernel: str
    operands: tuple[Place | Constant, ...]
    span: tuple[int, int]
    layer: str
    kind: str


@dataclass(frozen=True)
class Step:
    """What one node of the graph does, or a block of nodes that is computed strip by strip.

    Attributes:
        layer: name of the node, or the names of a block's first and last one.
        kind: "dense", "depthwise" (both int8), "float", or "other"; the last node's.
        calls: kernels in order.
        reads: tensors that must be alive.
        writes: the tensor that is made.
        scratch: buffers needed during the step only: name to bytes.
        replaces: a tensor whose place the result may take, because each of its values is read
            just before the value in its place is written, and nobody reads it later.
    """

    layer: str
    kind: str
    calls: tuple[Call, ...]
    reads: tuple[str, ...]
    writes: str
    scratch: Mapping[str, int] = field(default_factory=dict)
    replaces: str | None = None


@dataclass(frozen=True, eq=False)
class Program:
    """A network for one instruction set.

    Attributes:
        steps: in order; the first one normalizes the image.
        kernels: builders of TensorIR functions by symbol.
        constants: arrays of .rodata.
        sizes: bytes of every tensor in memory; strips of others are scratch buffers.
        schedules: of the kernels that have knobs, by symbol.
    """

    graph: IntegerGraph
    steps: tuple[Step, ...]
    kernels: Mapping[str, Callable[[], Any]]
    constants: tuple[Array, ...]
    sizes: Mapping[str, int]
    schedules: Mapping[str, Schedule] = field(default_factory=dict)

    def kinds(self) -> dict[str, str]:
        """Kind of every kernel by symbol, for the census."""
        return {call.kernel: call.kind for call in self.calls()}

    def calls(self) -> Iterator[Call]:
        """All calls in order."""
        return (call for step in self.steps for call in step.calls)

    def layers(self) -> dict[str, tuple[str, ...]]:
        """The layers that use each kernel, by its symbol."""
        found: dict[str, dict[str, None]] = {}
        for call in self.calls():
            found.setdefault(call.kernel, {})[call.layer] = None
        return {kernel: tuple(layers) for kernel, layers in found.items()}


def stored_channels(graph: IntegerGraph, tensor: Tensor) -> int:
    """Channels in memory."""
    first = graph.nodes[0]
    if isinstance(first, Input) and tensor.name == first.output:
        return tensor.channels
    return padded(tensor.channels)


def has_quantized_input(graph: IntegerGraph) -> bool:
    """The network's first tensor is int8; it is not where the first layer computes in float."""
    first = graph.nodes[0]
    return isinstance(first, Input) and graph.tensors[first.output].dtype == "int8"


def padded(channels: int) -> int:
    """Channels rounded up to full vectors."""
    return -(-channels // LANES) * LANES
