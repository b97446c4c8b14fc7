"""What the pipeline asks of a backend, and which backends this build has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mfn_compile.errors import UsageError
from mfn_compile.evaluate.embeddings import Embedder
from mfn_compile.model.preprocessing import Preprocessing
from mfn_compile.progress import Progress
from mfn_compile.results import BackendResult, CheckpointInfo, Latency
from mfn_compile.target import Target


class Backend(Protocol):
    """Compiles a QDQ network for one target and runs it.

    Attributes:
        code: sub-packages whose source decides the artifact.
        tools: distributions whose versions decide the artifact.
        measures_latency: False where there is no device to time the artifact on.
    """

    code: tuple[str, ...]
    tools: tuple[str, ...]
    measures_latency: bool

    def machine(self) -> dict[str, object]:
        """What of this machine decides precision and speed; part of the stages' keys."""

    def build(
        self,
        qdq: Path,
        fp32: Path,
        folder: Path,
        *,
        checkpoint: CheckpointInfo,
        judged: NDArray[np.uint8],
        blob: bool,
        progress: Progress,
    ) -> BackendResult:
        """Write the artifact to `folder` and compare it with the outside judge on `judged`."""

    def shipped(self, folder: Path, result: BackendResult) -> dict[str, Path]:
        """Files of the bundle that are the artifact, by their path in it."""

    def bundle(self, folder: Path) -> Path:
        """The folder of a finished build that a device is given."""

    def embedder(self, folder: Path, preprocessing: Preprocessing) -> Embedder:
        """Runs the INT8 artifact of a finished build."""

    def fp32_embedder(self, folder: Path, preprocessing: Preprocessing) -> Embedder:
        """Runs the float network on the same engine."""

    def latency(
        self,
        folder: Path,
        *,
        crop: NDArray[np.uint8],
        preprocessing: Preprocessing,
        progress: Progress,
    ) -> Latency:
        """Time the artifact against the float network; only where it `measures_latency`."""

    def notes(self, overflow_fix: str) -> tuple[str, ...]:
        """What a reader must know about this machine as a stand-in for the target."""


def _openvino(target: Target, threads: int, tune: int | None) -> Backend:
    from mfn_compile.intel.backend import OpenVinoBackend  # noqa: PLC0415 - only when chosen

    return OpenVinoBackend(target, threads, tune)


def _tvm(target: Target, threads: int, tune: int | None) -> Backend:
    if threads != 1:
        raise UsageError(
            f"Target {target.name!r} computes an image on one thread",
            why=f"{threads} threads were asked for",
            hint="Leave --threads out; run several images at once, each in a thread of your own",
        )
    from mfn_compile.arm.backend import TvmBackend  # noqa: PLC0415 - only when chosen

    return TvmBackend(target)


BACKENDS: dict[str, Callable[[Target, int, int | None], Backend]] = {
    "openvino": _openvino,
    "tvm": _tvm,
}


def make_backend(target: Target, threads: int | None, tune: int | None = None) -> Backend:
    """The backend of a target; `threads` None takes the target's own number.

    `tune` is how many ways to run the artifact are tried, None as many as are worth it.

    Raises:
        UsageError: the backend cannot run that many threads.
    """
    return BACKENDS[target.backend](target, threads or target.runtime.threads, tune)


def make_tuned_backend(target: Target, folder: Path) -> Backend:
    """The backend of an ARM target with the records that tuning left in a folder.

    Raises:
        BadInputError: the folder has no records of the target's cores, or damaged ones.
    """
    from mfn_compile.arm.backend import TvmBackend  # noqa: PLC0415 - only when chosen
    from mfn_compile.arm.schedules import load_folder  # noqa: PLC0415

    assert target.code is not None
    return TvmBackend(target, load_folder(folder, [v.cpu for v in target.code.variants]))
