"""Tunes the kernels of a target for a network: every variant on its core, records as the result."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mfn_compile.device.real.address import RpcAddress
from mfn_compile.device.real.programs import LayerSource
from mfn_compile.device.spec import LOCAL, RPC, VIRTUAL, parse_virtual
from mfn_compile.device.tools import Look
from mfn_compile.device_result import Milliseconds
from mfn_compile.errors import UsageError
from mfn_compile.frozen import Frozen
from mfn_compile.hashing import file_sha256, value_sha256
from mfn_compile.model.preprocessing import Preprocessing
from mfn_compile.progress import Progress
from mfn_compile.records import Records, Unit
from mfn_compile.store import source_sha256, tool_version
from mfn_compile.target import FEATURES, Code, Target, Variant
from mfn_compile.tune.place import BoardPlace, Network, Place, VirtualPlace

if TYPE_CHECKING:
    from mfn_compile.arm.graph import IntegerGraph
    from mfn_compile.tune.measure import NetworkMeasure
    from mfn_compile.tune.task import Result, Task, Trial

SEED = 0
SECONDS = 300.0
BLOCKS = "blocks"  # folder of the trials of strips
CODE = ("arm", "device", "tune")
MILLIONS: Mapping[Unit, str] = {"cycles": "M cycles", "ns": "ms"}
MADE: Mapping[Unit, str] = {"cycles": "modelled", "ns": "measured"}
TOOLS = ("apache-tvm", "apache-tvm-ffi")


@dataclass(frozen=True)
class TuneRequest:
    """What tuning is asked for.

    Attributes:
        trials: measurements of each variant, what an earlier run measured included.
        seed: of the search.
        until_ms: stop when the whole network keeps to it, on a board.
        size: height and width of a smaller image to tune for; None is the network's own.
        device: where candidates run, virtual:NAME or rpc://HOST:PORT/KEY; None is the virtual core
            that each variant is compiled for.
        seconds: of one network on boards that are there, waiting for a free one included.
    """

    trials: int
    seed: int = SEED
    until_ms: float | None = None
    device: str | None = None
    size: tuple[int, int] | None = None
    seconds: float = SECONDS

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise UsageError(f"{self.trials} trials tune nothing", hint="Give 1 or more")
        if self.size is not None and (self.device or "").startswith(RPC):
            raise UsageError(
                "A smaller image is tuned for on a virtual device only",
                hint="Leave --device out, or compile a network of that size and tune it there",
            )
        if self.until_ms is not None and not 0 < self.until_ms < math.inf:
            raise UsageError(f"{self.until_ms} ms is no goal", hint="Give more than 0")


class TunedCore(Frozen):
    """How the kernels of one variant came out.

    Attributes:
        variant, cpu: as in the target.
        device: what the candidates ran on.
        unit: modelled cycles, or nanoseconds of a board that is there.
        first: of one inference with the knobs that tuning began with, in that unit; `best` with
            the winners.
        kernels: that have something to choose.
        trials: measured by this run and earlier ones; `measured` by this one; `failures` of all.
        ended: what ended the search.
        milliseconds: of one inference with the winners, where a board is known.
    """

    variant: str
    cpu: str
    device: str
    unit: Unit
    first: float = Field(gt=0)
    best: float = Field(gt=0)
    kernels: int
    trials: int
    measured: int
    failures: int
    ended: str
    milliseconds: Milliseconds | None = None


class Tuned(Frozen):
    """The result of a tuning."""

    target: str
    folder: str
    cores: tuple[TunedCore, ...]

    def lines(self) -> str:
        """For the console."""
        rows = [
            f"{core.variant} for {core.cpu}: {core.first / 1e6:.2f} to {core.best / 1e6:.2f} "
            f"{MILLIONS[core.unit]} ({core.first / core.best:.3f} times as fast), "
            f"{MADE[core.unit]}, of {core.kernels} kernels in {core.trials} trials, "
            f"{core.failures} of them failed; ended: {core.ended}"
            for core in self.cores
        ]
        return "\n".join([*rows, f"records       {self.folder}"])


def tune_target(
    qdq: Path,
    preprocessing: Preprocessing,
    target: Target,
    request: TuneRequest,
    image: NDArray[np.uint8],
    folder: Path,
    progress: Progress,
) -> Tuned:
    """Tune every variant of a target for a network; writes `folder`/CPU.json, records.

    Args:
        qdq: the quantized network.
        image: uint8 RGB [112, 112, 3] that candidates are checked and counted on, beside noise.
        folder: of the logs and MetaSchedule's databases too; what it has is not measured again.

    Raises:
        UsageError: the target has no code to tune, or a time is asked of a core alone.
        BadInputError: no model of a core; or the folder is of another network or version.
        DeviceError: a tool, the tracker or a board is missing or failed.
        InternalCheckError: the network fails with the knobs that tuning begins with.
    """
    images = np.stack([_noise(image), image])
    cores = [
        _Core(qdq, preprocessing, target, variant, place, request, images, folder, progress).tuned()
        for variant, place in places_of(request, target)
    ]
    return Tuned(target=target.name, folder=str(folder), cores=tuple(cores))


def places_of(request: TuneRequest, target: Target) -> tuple[tuple[Variant, Place], ...]:
    """Every variant that is tuned, and where.

    Raises:
        UsageError: the target has no code to tune, or a time is asked of a core alone.
        BadInputError: no model of a core.
    """
    if target.code is None:
        raise UsageError(
            f"The target {target.name!r} has no kernels of ours",
            hint="Tune an ARM target; `mfn-compile targets` lists them",
        )
    found = [(v, place_of(request, target, v)) for v in variants_of(request, target.code)]
    for _, place in found:
        if request.until_ms is not None and place.milliseconds(1.0) is None:
            raise UsageError(
                f"{request.until_ms:g} ms cannot be seen on {place.title}",
                why="a core alone has modelled cycles and no time",
                hint="Name a board: --device virtual:raspberry-pi-4",
            )
    return tuple(found)


def looks_of(request: TuneRequest, target: Target) -> tuple[Look, ...]:
    """For the outside tools that the tuning needs.

    Raises:
        UsageError, BadInputError: as `places_of`.
    """
    return tuple(look for _, place in places_of(request, target) for look in place.looks)


def identity() -> dict[str, object]:
    """Versions of everything that decides what a kernel costs."""
    return {
        "code": {name: source_sha256(name) for name in CODE},
        "tools": {name: tool_version(name) for name in TOOLS},
    }


def variants_of(request: TuneRequest, code: Code) -> tuple[Variant, ...]:
    """The variants to tune: all, or the best that a virtual device's core runs.

    Raises:
        BadInputError: it runs none.
    """
    ordered = sorted(code.variants, key=lambda variant: FEATURES.index(variant.name))
    if request.device is None:
        return code.variants
    if request.device.startswith(RPC):
        # The fastest first: a board that lacks it says so before hours of work on another.
        return tuple(reversed(ordered))
    if request.device == LOCAL:
        raise UsageError(
            "Candidates do not run on the device 'local'",
            why="one that crashes must not end the tuning",
            hint="Start tools/board_server.py --with-tracker here, and name it: "
            "--device rpc://127.0.0.1:9190/board",
        )
    core = parse_virtual(request.device).core
    able = [variant for variant in ordered if core.macs.of(variant.name) is not None]
    if not able:
        core.peak(ordered[0].name)
    return tuple(able[-1:])


def place_of(request: TuneRequest, target: Target, variant: Variant) -> Place:
    """Where the candidates of a variant run.

    Raises:
        UsageError: the request's device has no form that is known.
        BadInputError: no model of the core.
    """
    if request.device is not None and request.device.startswith(RPC):
        return BoardPlace(RpcAddress.parse(request.device), request.seconds)
    return VirtualPlace(parse_virtual(request.device or _modelled(target, variant)))


def _modelled(target: Target, variant: Variant) -> str:
    """The virtual core that a variant is compiled for, on the target's board if it is one."""
    if target.board is not None:
        for entry in target.board.cores:
            if entry.core == variant.cpu:
                return f"{VIRTUAL}{target.name}/{entry.core}"
    return VIRTUAL + variant.cpu


def _noise(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.random.default_rng(SEED).integers(0, 256, image.shape, np.uint8)


@dataclass(frozen=True, eq=False)
class _Core:
    """The tuning of one variant."""

    qdq: Path
    preprocessing: Preprocessing
    target: Target
    variant: Variant
    place: Place
    request: TuneRequest
    images: NDArray[np.uint8]
    folder: Path
    progress: Progress

    def tuned(self) -> TunedCore:
        """Search, and write the records."""
        from mfn_compile.tune.shipping import records_of  # noqa: PLC0415 - loads TVM
        from mfn_compile.tune.tasks import tasks_of  # noqa: PLC0415

        cpu, isa = self.variant.cpu, self.variant.name
        tasks = tasks_of(self._graph, cpu, isa)
        with self.place.measure(self._network) as measure:
            rest = measure.rest(tasks)
            result = self._search(tasks, measure, self.folder / cpu, rest)
        records = records_of(tasks, result, cpu, isa, self.place.name, self.request.seed)
        records = self._with_blocks(records)
        records.save(self.folder / f"{cpu}.json")
        return self._describe(result, rest)

    @cached_property
    def _graph(self) -> IntegerGraph:
        from mfn_compile.arm.reader import read_graph  # noqa: PLC0415 - loads TVM
        from mfn_compile.arm.resize import resized  # noqa: PLC0415

        graph = read_graph(self.qdq, self.preprocessing)
        return graph if self.request.size is None else resized(graph, *self.request.size)

    @property
    def _network(self) -> Network:
        assert self.target.code is not None
        code = self.target.code.model_copy(update={"variants": (self.variant,)})
        source = LayerSource(self.qdq, self.preprocessing, code)
        size = {"height": self._graph.height, "width": self._graph.width}
        pixels = self.preprocessing.model_copy(update=size).crop(self.images)
        return Network(source, self._graph, pixels)

    def _with_blocks(self, records: Records) -> Records:
        """With the rows that blocks of layers are best computed in."""
        from mfn_compile.tune.block_strips import block_tasks, with_defaults  # noqa: PLC0415 - loads TVM
        from mfn_compile.tune.shipping import records_of, with_entries  # noqa: PLC0415

        cpu, isa = self.variant.cpu, self.variant.name
        tasks = block_tasks(self._graph, isa)
        measure = self.place.measure_blocks(self._network, records)
        if measure is None or not tasks:
            return records
        with measure:
            result = self._search(tasks, measure, self.folder / cpu / BLOCKS, None)
        result = with_defaults(tasks, result)
        found = records_of(tasks, result, cpu, isa, self.place.name, self.request.seed)
        return with_entries(records, found.entries)

    def _search(
        self, tasks: Sequence[Task], measure: NetworkMeasure, folder: Path, rest: float | None
    ) -> Result:
        """The winners; `rest` is what an inference costs beside the tasks, None for blocks."""
        from mfn_compile.tune.engine import tune  # noqa: PLC0415 - loads TVM

        what = "kernels" if rest is not None else "strips"
        title = f"tuning {what} of {self.variant.name} on {self.place.title}"
        with self.progress.task(title, self.request.trials) as task:

            def observe(trial: Trial) -> None:
                task.advance(1, _note(trial, rest, self.place.unit))

            return tune(
                tasks,
                measure,
                folder,
                trials=self.request.trials,
                seed=self.request.seed,
                target=f"{self.variant.cpu} on {self.place.name}",
                code=self._code(),
                stop=None if rest is None else self._stop(rest),
                observe=observe,
            )

    def _code(self) -> str:
        """What the cycles depend on besides the knobs."""
        return value_sha256(
            {
                "network": file_sha256(self.qdq),
                "preprocessing": self.preprocessing.model_dump(mode="json"),
                **identity(),
                "size": self.request.size,
                "variant": self.variant.model_dump(mode="json"),
            }
        )

    def _stop(self, rest: float) -> Callable[[float], bool] | None:
        until = self.request.until_ms
        if until is None:
            return None

        def met(cycles: float) -> bool:
            found = self.place.milliseconds(cycles + rest) if cycles < math.inf else None
            return found is not None and found.value <= until

        return met

    def _describe(self, result: Result, rest: float) -> TunedCore:
        return TunedCore(
            variant=self.variant.name,
            cpu=self.variant.cpu,
            device=self.place.title,
            unit=self.place.unit,
            first=result.first_cycles + rest,
            best=result.cycles + rest,
            kernels=len(result.kernels),
            trials=result.trials,
            measured=result.measured,
            failures=sum(winner.failures for winner in result.kernels),
            ended=result.ended,
            milliseconds=self.place.milliseconds(result.cycles + rest),
        )


def _note(trial: Trial, rest: float | None, unit: Unit) -> str:
    """The best so far, of the trial's kernel and of the network."""
    kernel = "failed so far" if trial.best is None else f"{trial.best / 1e6:.3f}"
    network = ""
    if trial.total is not None:
        whole = "blocks" if rest is None else "network"
        network = f", {whole} {(trial.total + (rest or 0.0)) / 1e6:.2f}"
    return f"{trial.kernel}: {kernel}{network} {MILLIONS[unit]}"
