"""A compiled network on the virtual board, without a bundle around it."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mfn_compile.arm.codegen import Compiled, object_code
from mfn_compile.device.blocks import join
from mfn_compile.device.board import LINE, Core
from mfn_compile.device.costs import Costs, model_of
from mfn_compile.device.profile import block_cycles
from mfn_compile.device.runner import RUN_SECONDS, link, run_counted
from mfn_compile.device.symbols import read_symbols

SOURCE = Path(__file__).parent / "plugin" / "tensors.c"
SUFFIX = "_x"  # of the entry point that tensors.c calls


@dataclass(frozen=True)
class NetworkRun:
    """Two inferences; the second one was counted.

    Attributes:
        cycles: modelled, by function.
        waits: cycles that its transfers take at the core's nominal rates, by function.
        instructions: of all functions; `l1_misses`, `l2_misses` likewise.
        workspaces: what each inference left in its workspace.
    """

    cycles: Mapping[str, float]
    waits: Mapping[str, float]
    instructions: int
    l1_misses: int
    l2_misses: int
    workspaces: tuple[bytes, ...]


def run_network(
    compiled: Compiled,
    images: NDArray[np.uint8],
    core: Core,
    cache: Path,
    *,
    seconds: float = RUN_SECONDS,
) -> NetworkRun:
    """Link, run and count a network that was compiled with `SUFFIX`.

    Args:
        images: uint8 RGB [2, height, width, 3].
        cache: folder of the modelled cycles.
        seconds: after which the program is stopped.

    Raises:
        DeviceError: a tool is missing or failed, or the program crashed, did not end, or wrote
            outside of its workspace.
    """
    with tempfile.TemporaryDirectory(prefix="mfn-network-") as name:
        folder = Path(name)
        program = _build(compiled, folder)
        pixels, out = folder / "images.bin", folder / "workspaces.bin"
        pixels.write_bytes(images.tobytes())
        counts = run_counted([program, pixels, out], core, seconds=seconds)
        symbols, content = read_symbols(program), out.read_bytes()
    blocks = join(counts.blocks)
    spent: dict[str, float] = defaultdict(float)
    costs = block_cycles(blocks, Costs(model_of(core), cache))
    for block, cycles in zip(blocks, costs, strict=True):
        spent[symbols.at(block.address).name] += cycles
    waits: dict[str, float] = defaultdict(float)
    for block in counts.blocks:
        moved, memory = block.l1 * LINE, block.l2 * LINE
        rates = core.transfer
        waits[symbols.at(block.address).name] += (moved - memory) / rates.l2 + memory / rates.memory
    peak = compiled.plan.peak
    return NetworkRun(
        cycles=dict(spent),
        waits=dict(waits),
        instructions=round(sum(block.instructions for block in counts.blocks)),
        l1_misses=sum(block.l1 for block in counts.blocks),
        l2_misses=sum(block.l2 for block in counts.blocks),
        workspaces=tuple(content[at : at + peak] for at in range(0, len(content), peak)),
    )


def _build(compiled: Compiled, folder: Path) -> Path:
    """The program of tensors.c around a network."""
    graph = compiled.program.graph
    code = folder / "network.o"
    code.write_bytes(object_code(compiled.llvm))
    options = (
        f"-DMFN_PIXELS={graph.height * graph.width * 3}",
        f"-DMFN_WIDTH={graph.embedding}",
        f"-DMFN_PEAK={compiled.plan.peak}",
    )
    return link(SOURCE, (code,), folder / "tensors", options)
