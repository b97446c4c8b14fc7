"""What else would bring an image's time down: more threads, a smaller input, another core."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mfn_compile.arm.schedules import schedules_for
from mfn_compile.device.board import Core, cores
from mfn_compile.device.spec import VIRTUAL, VirtualDevice, parse_virtual
from mfn_compile.device_result import DeviceResult, Way, WayKind, Ways
from mfn_compile.errors import BadInputError, DeviceError
from mfn_compile.hashing import file_sha256
from mfn_compile.model.preprocessing import Preprocessing
from mfn_compile.progress import Progress
from mfn_compile.store import Stage, Store
from mfn_compile.target import Code, Variant, list_targets

if TYPE_CHECKING:
    from mfn_compile.arm.graph import IntegerGraph

SIZES = ((112, 96), (96, 96))  # of the MobileFaceNet paper, beside 112x112
TEAMS = (2, 4)
SEED = 0
LIBRARY = "lib/libmfn.a"
ASKS: Mapping[WayKind, str] = {
    "as it is": "nothing",
    "threads": "so many cores like this, a pool of threads and mfn_embed_parallel; the bits stay",
    "input": "a network that is trained for it: this one's last window is as large as its last "
    "feature map; its accuracy has to be measured then",
    "core": "other hardware; the library stays",
}


@dataclass(frozen=True, eq=False)
class Explorer:
    """Models the ways of one artifact.

    Attributes:
        qdq: the network.
        bundle: the artifact.
        found: of the artifact, on `device`.
        tuned: folder of records that it was compiled with; None for the shipped ones.
    """

    qdq: Path
    preprocessing: Preprocessing
    code: Code
    bundle: Path
    device: VirtualDevice
    found: DeviceResult
    tuned: Path | None = None

    def ways(self, advance: Callable[[], None] = lambda: None) -> Ways:
        """All of them, in the order of what they ask.

        Args:
            advance: called behind each.

        Raises:
            DeviceError: a tool is missing or failed.
        """
        found = []
        for way in self._all():
            found.append(way)
            advance()
        return Ways(ways=tuple(found))

    def _all(self) -> Iterator[Way]:
        assert self.found.cycles is not None
        size = f"{self.preprocessing.height}x{self.preprocessing.width}"
        yield self._way("as it is", f"{size}, 1 thread", self.device, self.found.cycles)
        yield from self._teams(size)
        for height, width in SIZES:
            if height * width < self.preprocessing.height * self.preprocessing.width:
                cycles = self._smaller(height, width)
                if cycles is not None:
                    yield self._way("input", f"{height}x{width}, 1 thread", self.device, cycles)
        yield from self._boards(f"{size}, 1 thread")

    def _way(self, kind: WayKind, text: str, device: VirtualDevice, cycles: float) -> Way:
        return Way(
            kind=kind,
            text=text,
            device=device.title,
            cycles=cycles,
            milliseconds=device.milliseconds(cycles),
            asks=ASKS[kind],
        )

    def _teams(self, size: str) -> Iterator[Way]:
        """The artifact on several threads."""
        from mfn_compile.device.threads import run_teams  # noqa: PLC0415

        assert self.found.cycles is not None
        cores = max(TEAMS) if self.device.entry is None else self.device.entry.count
        teams = [each for each in TEAMS if each <= cores]
        variant, alone = self._variant.name, self.found.cycles
        for team in run_teams(self.bundle, self.device, variant, alone, teams):
            text = f"{size}, {team.threads} threads"
            yield self._way("threads", text, self.device, team.cycles)

    @cached_property
    def _variant(self) -> Variant:
        return next(v for v in self.code.variants if v.name == self.found.variant)

    @cached_property
    def _graph(self) -> IntegerGraph:
        from mfn_compile.arm.reader import read_graph  # noqa: PLC0415 - loads TVM

        return read_graph(self.qdq, self.preprocessing)

    def _smaller(self, height: int, width: int) -> float | None:
        """Cycles of the network on a smaller image; None where it does not run on one."""
        from mfn_compile.arm.codegen import Machine, compile_network  # noqa: PLC0415
        from mfn_compile.arm.library import RESERVED  # noqa: PLC0415
        from mfn_compile.arm.prepared import prepared  # noqa: PLC0415
        from mfn_compile.arm.resize import resized  # noqa: PLC0415
        from mfn_compile.device.emulator import folder  # noqa: PLC0415
        from mfn_compile.device.network_run import SUFFIX, run_network  # noqa: PLC0415

        variant = self._variant
        features = (*variant.features, *RESERVED)
        machine = Machine(variant.name, self.code.triple, variant.cpu, features)
        schedules = schedules_for(variant.cpu, variant.name, self.tuned)
        try:
            small = resized(self._graph, height, width)
        except BadInputError:
            return None
        graph = prepared(small)
        compiled = compile_network(graph, machine, suffix=SUFFIX, schedules=schedules)
        shape = (2, height, width, 3)
        images = np.random.default_rng(SEED).integers(0, 256, shape, np.uint8)
        return sum(run_network(compiled, images, self.device.core, folder()).cycles.values())

    def _boards(self, text: str) -> Iterator[Way]:
        """The artifact on the cores of every other board that runs it, the slowest first."""
        cycles: dict[str, float | None] = {}
        found = []
        for target in list_targets():
            if target.board is None or target.board == self.device.board:
                continue
            for entry in target.board.cores:
                device = parse_virtual(f"{VIRTUAL}{target.name}/{entry.core}")
                if entry.core not in cycles:
                    cycles[entry.core] = self._on_core(device)
                if (spent := cycles[entry.core]) is not None:
                    found.append(self._way("core", text, device, spent))
        timed = [way for way in found if way.milliseconds is not None]
        yield from sorted(timed, key=_slowest_first)

    def _on_core(self, device: VirtualDevice) -> float | None:
        """Cycles on another core; None where the library does not run, or no tool models it."""
        from mfn_compile.device.profile import best_variant, profile  # noqa: PLC0415
        from mfn_compile.device.runner import open_bundle  # noqa: PLC0415

        variant = best_variant(self.bundle, device.core)
        if not open_bundle(self.bundle).has(variant) or not can_model(device.core):
            return None
        return profile(self.bundle, device.core, variant).cycles


def can_model(core: Core) -> bool:
    """Whether the tools for a core's model are here."""
    from mfn_compile.device.costs import model_of  # noqa: PLC0415

    try:
        model_of(core)
    except DeviceError:
        return False
    return True


def _slowest_first(way: Way) -> float:
    """The smallest step up comes first."""
    assert way.milliseconds is not None
    return -way.milliseconds.value


def explore(explorer: Explorer, store: Store, progress: Progress) -> Ways:
    """The ways of an artifact, stored.

    Raises:
        DeviceError: a tool is missing or failed.
    """
    variant = next(v for v in explorer.code.variants if v.name == explorer.found.variant)
    records = schedules_for(variant.cpu, variant.name, explorer.tuned).records
    inputs = {
        "records": records and records.model_dump(mode="json"),
        "models": [core.name for core in cores() if can_model(core)],
        "qdq": file_sha256(explorer.qdq),
        "library": file_sha256(explorer.bundle / LIBRARY),
        "device": explorer.found.model_dump(mode="json"),
        "boards": [target.digest() for target in list_targets() if target.board is not None],
    }
    stage = Stage("ways", Ways, ("arm", "device", "device_result", "ways"), ("apache-tvm",))

    def run(folder: Path) -> Ways:
        with progress.task("modelling smaller inputs and other boards") as task:
            return explorer.ways(task.advance)

    return store.run(stage, inputs, run).result
