"""What the pipeline asks of a backend, and which backends this build has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mfn_compile.errors import DeviceError
from mfn_compile.evaluate.embeddings import Embedder
from mfn_compile.model.preprocessing import Preprocessing
from mfn_compile.progress import Progress
from mfn_compile.results import BackendResult, Latency
from mfn_compile.target import Target


class Backend(Protocol):
    """Compiles a QDQ network for one target and runs it.

    Attributes:
        code: sub-packages whose source decides the artifact.
        tools: distributions whose versions decide the artifact.
    """

    code: tuple[str, ...]
    tools: tuple[str, ...]

    def machine(self) -> dict[str, object]:
        """What of this machine decides precision and speed; part of the stages' keys."""

    def build(
        self,
        qdq: Path,
        fp32: Path,
        folder: Path,
        *,
        preprocessing: Preprocessing,
        judged: NDArray[np.uint8],
        blob: bool,
        progress: Progress,
    ) -> BackendResult:
        """Write the artifact to `folder` and compare it with the outside judge on `judged`."""

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
        """Time the artifact against the float network."""

    def notes(self, overflow_fix: str) -> tuple[str, ...]:
        """What a reader must know about this machine as a stand-in for the target."""


def _openvino(target: Target, threads: int) -> Backend:
    from mfn_compile.intel.backend import OpenVinoBackend  # noqa: PLC0415 - only when chosen

    return OpenVinoBackend(target, threads)


BACKENDS: dict[str, Callable[[Target, int], Backend]] = {"openvino": _openvino}


def make_backend(target: Target, threads: int | None) -> Backend:
    """The backend of a target; `threads` None takes the target's own number.

    Raises:
        DeviceError: this build does not have the backend.
    """
    if target.backend not in BACKENDS:
        raise DeviceError(
            f"Target {target.name!r} needs the {target.backend} backend, "
            "which is not in this build yet",
            why=f"Backends in this build: {', '.join(BACKENDS)}",
            hint="`mfn-compile targets` lists the targets that can be compiled for",
        )
    return BACKENDS[target.backend](target, threads or target.runtime.threads)
