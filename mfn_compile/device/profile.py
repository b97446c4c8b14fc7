"""Where an inference spends its modelled cycles, kernel by kernel."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from mfn_compile.arm.firmware.facts import VARIANTS, Variant
from mfn_compile.device.blocks import Block, Counts, join
from mfn_compile.device.board import LINE, Core
from mfn_compile.device.costs import Costs, model_of
from mfn_compile.device.emulator import folder as board_folder
from mfn_compile.device.kernels import calls_of, macs_of
from mfn_compile.device.runner import RUN_SECONDS, build_inference, open_bundle, run_counted
from mfn_compile.device.symbols import Symbol, Symbols, read_symbols
from mfn_compile.device_result import KernelCost
from mfn_compile.frozen import Frozen

PREFIX = "mfn_"
COVERED = 0.9998  # share of the instructions that is given to the model


class Profile(Frozen):
    """One inference on the virtual board, after another that warmed its caches up."""

    core: str
    variant: Variant
    model: str = Field(description="what the cycles are from")
    cycles: float = Field(ge=0, description="modelled; not a time: waiting for memory is not in it")
    instructions: int = Field(ge=0)
    accesses: int = Field(ge=0, description="loads and stores, one a cache line touched")
    l1_misses: int = Field(ge=0)
    l2_misses: int = Field(ge=0)
    macs: int = Field(ge=0)
    macs_per_cycle: float
    kernels: tuple[KernelCost, ...] = Field(description="the most expensive first")


@dataclass
class _Sum:
    symbol: Symbol
    cycles: float = 0.0
    instructions: int = 0
    l1: int = 0
    l2: int = 0
    calls: int = 0
    places: set[int] = field(default_factory=set)


def best_variant(place: Path, core: Core) -> Variant:
    """The fastest code that the bundle has and the core runs.

    Raises:
        BadInputError: the bundle lacks a file.
    """
    bundle = open_bundle(place)
    able = [name for name in VARIANTS if core.macs.of(name) is not None and bundle.has(name)]
    return able[-1] if able else "neon"


def profile(
    place: Path,
    core: Core,
    variant: Variant,
    *,
    in_tasks: bool = False,
    cache: Path | None = None,
    seconds: float = RUN_SECONDS,
) -> Profile:
    """Run one inference of a bundle on the virtual board and say where its cycles go.

    Args:
        place: the bundle's folder, or the libmfn.a in one.
        core: from `board.find_core`.
        variant: which code of the library to run.
        in_tasks: mfn_embed_parallel, its tasks one after another.
        cache: folder for what is computed once; by default the user's.
        seconds: after which the program is stopped.

    Raises:
        BadInputError: the bundle lacks a file or the variant, or the core cannot run it.
        DeviceError: a tool is missing or failed, or the program crashed or did not end.
    """
    core.peak(variant)
    bundle = open_bundle(place)
    model = model_of(core)
    costs = Costs(model, cache or board_folder())
    with tempfile.TemporaryDirectory(prefix="mfn-profile-") as folder:
        program = build_inference(bundle, variant, Path(folder), in_tasks=in_tasks)
        symbols = read_symbols(program)
        counts = run_counted([program, bundle.image.absolute()], core, seconds=seconds)
    return _profile(counts, symbols, costs, core, variant, model.identity)


def block_cycles(blocks: Sequence[Block], costs: Costs) -> list[float]:
    """Cycles of joined blocks over the run; the rarest get the average of the others."""
    total = sum(block.instructions for block in blocks)
    chosen: list[Block] = []
    seen = 0.0
    for block in sorted(blocks, key=lambda b: (-b.instructions, b.address, b.code)):
        if seen >= COVERED * total:
            break
        chosen.append(block)
        seen += block.instructions
    found = costs.of(block.code for block in chosen)
    average = sum(b.count * found[b.code] for b in chosen) / seen if seen else 0.0
    return [
        b.count * found[b.code] if b.code in found else b.instructions * average for b in blocks
    ]


def _profile(
    counts: Counts, symbols: Symbols, costs: Costs, core: Core, variant: Variant, model: str
) -> Profile:
    blocks = join(counts.blocks)
    sums: dict[str, _Sum] = {}

    def of(address: int) -> _Sum:
        symbol = symbols.at(address)
        return sums.setdefault(symbol.name, _Sum(symbol))

    for block, cycles in zip(blocks, block_cycles(blocks, costs), strict=True):
        of(block.address).cycles += cycles
    for block in counts.blocks:
        row = of(block.address)
        row.instructions += round(block.instructions)
        row.l1 += block.l1
        row.l2 += block.l2
    for target, site, count in _calls(counts.blocks):
        row = of(target)
        row.calls += count
        row.places.add(site)
    total = sum(row.cycles for row in sums.values())
    costly = sorted(sums.values(), key=lambda row: (-row.cycles, row.symbol.name))
    rows = tuple(_row(row, total, core, variant) for row in costly)
    macs = sum(row.macs or 0 for row in rows)
    return Profile(
        core=core.name,
        variant=variant,
        model=model,
        cycles=total,
        instructions=sum(row.instructions for row in sums.values()),
        accesses=counts.accesses,
        l1_misses=sum(row.l1 for row in sums.values()),
        l2_misses=sum(row.l2 for row in sums.values()),
        macs=macs,
        macs_per_cycle=macs / total if total else 0.0,
        kernels=rows,
    )


def _calls(blocks: Sequence[Block]) -> list[tuple[int, int, int]]:
    """(address called, address behind the call, how often) of every direct call."""
    sites: dict[tuple[int, int], int] = defaultdict(int)
    for block in blocks:
        target = block.called
        if target is not None:
            sites[target, block.end] += round(block.count)
    return [(target, site, count) for (target, site), count in sites.items()]


def _row(found: _Sum, total: float, core: Core, variant: Variant) -> KernelCost:
    name = found.symbol.name
    kernel = name.removeprefix(f"{PREFIX}{variant}_")
    layer, strips = macs_of(kernel), calls_of(kernel)
    macs = None if layer is None else layer * found.calls // strips
    rate = None if macs is None or not found.cycles else macs / found.cycles
    moved, memory = found.l1 * LINE, found.l2 * LINE
    waiting = (moved - memory) / core.transfer.l2 + memory / core.transfer.memory
    return KernelCost(
        kernel=kernel,
        in_library=name.startswith(PREFIX),
        layers=len(found.places) // strips,
        calls=found.calls,
        instructions=found.instructions,
        cycles=found.cycles,
        share=min(1.0, found.cycles / total) if total else 0.0,
        macs=macs,
        macs_per_cycle=rate,
        of_peak=None if rate is None else rate / core.peak(variant),
        l1_misses=found.l1,
        l2_misses=found.l2,
        bytes_moved=moved,
        memory_bytes=memory,
        memory_cycles=waiting,
        bound="memory" if waiting > found.cycles else "compute",
        code_bytes=found.symbol.size,
    )
