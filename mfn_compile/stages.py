"""The stages by name, and the model part that every command begins with."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mfn_compile.material import CropPool
from mfn_compile.model.files import checked_sha256
from mfn_compile.progress import Progress
from mfn_compile.request import ModelSource
from mfn_compile.resources import demo_checkpoint
from mfn_compile.results import (
    CheckpointInfo,
    Evaluation,
    ExportResult,
    QuantizeResult,
)
from mfn_compile.store import Stage, Store, Stored, default_root

if TYPE_CHECKING:
    from mfn_compile.model.loader import LoadedModel
    from mfn_compile.model.network import MobileFaceNet

FACE_CROPS = 8  # crops on which the exported graph is checked, besides noise

INSPECT = Stage("inspect", CheckpointInfo, ("model",), ("torch",))
EXPORT = Stage(
    "export",
    ExportResult,
    ("model", "export", "onnx_session"),
    ("torch", "onnx", "onnxsim", "onnxruntime"),
)
QUANTIZE = Stage(
    "quantize",
    QuantizeResult,
    ("quantize", "model", "export", "onnx_session", "vectors", "rounding"),
    ("nncf", "torch", "torchao", "onnx", "onnxruntime"),
)
ADOPT = Stage("adopt", QuantizeResult, QUANTIZE.code, ("onnx", "onnxruntime"))
EVALUATE = Stage("evaluate", Evaluation, ("evaluate",), ("numpy", "scipy"))


@contextmanager
def open_store(cache_dir: Path | None, no_cache: bool, progress: Progress) -> Iterator[Store]:
    """The user's store, or one that is gone afterwards."""
    if not no_cache:
        yield Store(cache_dir or default_root(), progress.note)
        return
    if cache_dir is not None:
        cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mfn-compile-", dir=cache_dir) as folder:
        yield Store(Path(folder), progress.note)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The model part of a run: what is in the file, and its float ONNX."""

    source: ModelSource
    store: Store
    progress: Progress

    @property
    def path(self) -> Path:
        """The user's file, or the demo model."""
        return self.source.checkpoint or demo_checkpoint()

    @cached_property
    def sha256(self) -> str:
        """Content hash of the file; BadInputError when it cannot be one."""
        return checked_sha256(self.path)

    @property
    def _inputs(self) -> dict[str, object]:
        source = self.source
        return {
            "checkpoint": self.sha256,
            "suffix": self.path.suffix.lower(),
            "name": self.path.stem,
            "bn_eps": source.bn_eps,
            **self._override,
        }

    @property
    def _override(self) -> dict[str, object]:
        source = self.source
        return {"color": source.color, "mean": _spread(source.mean), "std": _spread(source.std)}

    @cached_property
    def loaded(self) -> LoadedModel:
        """The network itself, read when a stage needs it."""
        from mfn_compile.model.loader import load_checkpoint  # noqa: PLC0415 - imports torch

        return load_checkpoint(
            self.path, preprocessing_override=self._override, bn_eps=self.source.bn_eps
        )

    def folded(self) -> MobileFaceNet | None:
        """The network in torch without BatchNorm, to fine-tune; None for an ONNX checkpoint."""
        from mfn_compile.export.fold import fold_batchnorm  # noqa: PLC0415 - imports torch

        module = self.loaded.module
        return None if module is None else fold_batchnorm(module)

    @cached_property
    def info(self) -> CheckpointInfo:
        """What was recognised."""
        return self.store.run(INSPECT, self._inputs, lambda folder: self.loaded.info).result

    def export(self, faces: CropPool, dynamic_batch: bool) -> Stored[ExportResult]:
        """The float ONNX file, checked against the checkpoint on noise and on faces."""

        def build(folder: Path) -> ExportResult:
            from mfn_compile.export.exporter import export  # noqa: PLC0415 - imports torch

            with self.progress.task("exporting to ONNX", 1) as task:
                found = export(
                    self.loaded,
                    folder,
                    dynamic_batch=dynamic_batch,
                    face_crops=faces.crops(FACE_CROPS),
                )
                task.advance()
            return found

        inputs = {
            **self._inputs,
            "dynamic_batch": dynamic_batch,
            "faces": faces.digest(),
        }
        return self.store.run(EXPORT, inputs, build)


def _spread(values: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """One number stands for all three channels."""
    return values * 3 if values is not None and len(values) == 1 else values


def describe_checkpoint(checkpoint: Checkpoint) -> str:
    """One line: what was recognised in the file."""
    info = checkpoint.info
    what = f"{checkpoint.path.name}: {info.layout} layout"
    if info.demo:
        what = "no checkpoint given: the demo model on rendered faces (yours: --checkpoint FILE)"
    return (
        f"{what}; {info.parameters:,} parameters, {info.macs / 1e6:.0f} M multiply-adds, "
        f"{info.embedding_width}-d embedding; input {info.preprocessing.describe()}"
    )
