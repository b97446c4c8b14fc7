"""What a user asks the pipeline for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mfn_compile.errors import UsageError

DEVICE_SECONDS = 300.0  # after which a device that does not answer is given up


@dataclass(frozen=True)
class DataSource:
    """Where images come from; nothing at all means the rendered benchmark of the demo model.

    Attributes:
        lfw: scikit-learn's lfw_home.
        benchmark: an InsightFace .bin set.
        images: folder of aligned crops, with `pairs`.
        pairs: pairs list over `images`.
        calibration: folder of aligned crops to calibrate on, where the set has none to spare.
        all_pairs: also compare every image with every other, where identities are known.
    """

    lfw: Path | None = None
    benchmark: Path | None = None
    images: Path | None = None
    pairs: Path | None = None
    calibration: Path | None = None
    all_pairs: bool = True

    def __post_init__(self) -> None:
        given = [
            name
            for name, value in (
                ("--lfw", self.lfw),
                ("--benchmark", self.benchmark),
                ("--images", self.images),
            )
            if value is not None
        ]
        if len(given) > 1:
            raise UsageError(
                f"{' and '.join(given)} name two evaluation sets", hint="Give one of them"
            )
        if (self.images is None) != (self.pairs is None):
            raise UsageError(
                "--images and --pairs belong together", hint="Give both, or only --calibration DIR"
            )


@dataclass(frozen=True)
class ModelSource:
    """The checkpoint and what the user knows better than its layout's defaults.

    Attributes:
        checkpoint: weight file; None means the demo model on rendered faces.
        color: "RGB" or "BGR".
        mean: one or three pixel values.
        std: one or three pixel values.
        bn_eps: BatchNorm epsilon.
    """

    checkpoint: Path | None = None
    color: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    bn_eps: float | None = None

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) not in (1, 3):
                raise UsageError(f"{name} {values} is neither one number nor three")


@dataclass(frozen=True)
class CompileRequest:
    """A whole run. Budgets None are the defaults (0.2 points; the target's milliseconds).

    `qdq` is the checkpoint's network as somebody else quantized it; it takes the place of ours.
    `device` is what an ARM artifact is timed on (virtual:NAME, rpc://HOST:PORT/KEY, local, none);
    None is the target's own virtual board, where the target is a board. `strict` misses the latency
    budget where a modelled time may keep to it or not. `tune` is how many candidates are tried for
    speed: 0 none, None what the backend does by itself; `until_ms` ends that sooner. `tuned` is a
    folder of records of an earlier tuning.
    """

    target: str
    model: ModelSource = field(default_factory=ModelSource)
    data: DataSource = field(default_factory=DataSource)
    recipe: str = "default"
    qat: bool = False
    qdq: Path | None = None
    out: Path | None = None
    threads: int | None = None
    tune: int | None = None
    until_ms: float | None = None
    tuned: Path | None = None
    dynamic_batch: bool = False
    blob: bool = False
    max_drop: float = 0.2
    max_latency_ms: float | None = None
    device: str | None = None
    device_seconds: float = DEVICE_SECONDS
    strict: bool = False
    cache_dir: Path | None = None
    no_cache: bool = False

    def __post_init__(self) -> None:
        if self.qdq is not None and self.qat:
            raise UsageError(
                "--qat and --qdq exclude each other",
                why="A network that is quantized already is compiled as it is",
                hint="Give one of them",
            )
        if self.max_drop < 0:
            raise UsageError(
                f"A drop of {self.max_drop} points is no budget", hint="Give 0 or more"
            )
        if self.max_latency_ms is not None and self.max_latency_ms <= 0:
            raise UsageError(
                f"{self.max_latency_ms} ms is no latency budget", hint="Give more than 0"
            )
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"{self.threads} threads cannot run anything", hint="Give 1 or more")
        if self.tune is not None and self.tune < 0:
            raise UsageError(f"{self.tune} candidates cannot be tried", hint="Give 0 or more")
        if self.until_ms is not None and not self.tune:
            raise UsageError(
                "--until-ms ends tuning, and nothing is tuned", hint="Give --tune N as well"
            )
        if self.tuned is not None and self.tune:
            raise UsageError(
                "--tune and --tuned exclude each other",
                why="--tuned takes what was found earlier, --tune searches",
                hint="Give one of them; a folder of --tuned is tuned further by `mfn-compile tune`",
            )
