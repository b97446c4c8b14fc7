"""The OpenVINO backend: artifact, proof of precision, latency."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mfn_compile import environment
from mfn_compile.evaluate.onnx_embedder import OnnxRuntimeEmbedder
from mfn_compile.intel.embedder import OpenVinoEmbedder
from mfn_compile.intel.execution import precision
from mfn_compile.intel.ir import convert
from mfn_compile.intel.latency import measure
from mfn_compile.intel.plan import Plan
from mfn_compile.intel.runtime import compile_model, latency_properties, limit_isa
from mfn_compile.intel.search import search
from mfn_compile.knob_result import KnobSearch, OpenVinoUse
from mfn_compile.model.preprocessing import Preprocessing
from mfn_compile.progress import Progress
from mfn_compile.results import BackendResult, CheckpointInfo, Latency
from mfn_compile.target import Target, has_vnni
from mfn_compile.vectors import cosines

INT8_XML = "model_int8.xml"
FP32_XML = "model_fp32.xml"
BLOB = "model_int8.blob"
USE = "openvino.json"  # of the finished build; the bundle has it in its manifest


class OpenVinoBackend:
    """Compiles for, and runs on, one OpenVINO target.

    Attributes:
        code: sub-packages whose source decides the artifact.
        tools: distributions whose versions decide the artifact.
    """

    code: tuple[str, ...] = ("intel", "onnx_session", "vectors", "knob_result")
    tools: tuple[str, ...] = ("openvino", "scipy")
    measures_latency = True

    def __init__(self, target: Target, threads: int, tune: int | None = None) -> None:
        self._device, self._isa, self._threads = target.runtime.device, target.runtime.isa, threads
        self._tune = tune

    def machine(self) -> dict[str, object]:
        """What of this machine decides precision and speed; part of the stages' keys."""
        return {
            "cpu": environment.cpu_name(),
            "flags": environment.relevant_flags(),
            "device": self._device,
            "isa": self._isa,
            "threads": self._threads,
            "tune": self._tune,
        }

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
        """Write both IRs to `folder`, prove the INT8 precision, compare with the outside judge.

        The fastest way to run the INT8 one is searched for in between, so that all that follows,
        the evaluation too, is of what is shipped.

        Args:
            judged: uint8 RGB crops [N, 112, 112, 3] on which ONNX Runtime, without graph
                optimizations, executes the QDQ file beside OpenVINO.

        Raises:
            DeviceError: the device is absent or refuses the model.
            InternalCheckError: OpenVINO's frontend does not take the file.
        """
        limit_isa(self._isa)
        with progress.task("compiling with OpenVINO", 1) as task:
            files = [*convert(qdq, folder / INT8_XML), *convert(fp32, folder / FP32_XML)]
            task.advance()
        preprocessing = checkpoint.preprocessing
        use, knobs = self._tuned(folder, preprocessing, judged, progress)
        with progress.task("checking the artifact", 2) as task:
            compiled = compile_model(folder / INT8_XML, self._device, use.properties)
            found = precision(compiled)
            if blob:
                (folder / BLOB).write_bytes(compiled.export_model().getvalue())
                files.append(folder / BLOB)
            task.advance()
            cosine = self._judge(qdq, folder, preprocessing, judged)
            task.advance()
        return BackendResult(
            files=tuple(path.name for path in files),
            precision=found,
            judge_cosine=float(cosine.mean()),
            judge_min_cosine=float(cosine.min()),
            judge_images=len(judged),
            openvino=use,
            knobs=knobs,
        )

    def _tuned(
        self,
        folder: Path,
        preprocessing: Preprocessing,
        crops: NDArray[np.uint8],
        progress: Progress,
    ) -> tuple[OpenVinoUse, KnobSearch | None]:
        """The INT8 IR in `folder` made the fastest one found, and how to run it."""
        use, knobs = Plan(latency_properties(self._threads)).use(), None
        if self._tune != 0 and len(crops):
            with tempfile.TemporaryDirectory(prefix="mfn-compile-") as scratch:
                found = search(
                    folder / INT8_XML,
                    folder / FP32_XML,
                    Path(scratch),
                    preprocessing=preprocessing,
                    crops=crops,
                    device=self._device,
                    isa=self._isa,
                    threads=self._threads,
                    tune=self._tune,
                    progress=progress,
                )
                use, knobs = found.plan.use(), found.search
                if found.xml != folder / INT8_XML:
                    shutil.copyfile(found.xml, folder / INT8_XML)
                    weights = found.xml.with_suffix(".bin")
                    shutil.copyfile(weights, (folder / INT8_XML).with_suffix(".bin"))
        (folder / USE).write_text(use.model_dump_json(), encoding="utf-8")
        return use, knobs

    def _properties(self, folder: Path) -> dict[str, str]:
        text = (folder / USE).read_text(encoding="utf-8")
        return OpenVinoUse.model_validate_json(text).properties

    def _judge(
        self, qdq: Path, folder: Path, preprocessing: Preprocessing, crops: NDArray[np.uint8]
    ) -> NDArray[np.float64]:
        judge = OnnxRuntimeEmbedder(qdq, preprocessing, optimize=False, threads=environment.cores())
        return cosines(self.embedder(folder, preprocessing).embed(crops), judge.embed(crops))

    def shipped(self, folder: Path, result: BackendResult) -> dict[str, Path]:
        """The INT8 model's files of the bundle, by their path in it."""
        return {f"model/{name}": folder / name for name in result.files if "int8" in name}

    def bundle(self, folder: Path) -> Path:
        """The folder of a finished build."""
        return folder

    def embedder(self, folder: Path, preprocessing: Preprocessing) -> OpenVinoEmbedder:
        """Runs the INT8 artifact of a finished build, with its properties."""
        properties = self._properties(folder)
        return OpenVinoEmbedder(
            folder / INT8_XML, preprocessing, self._device, self._isa, properties
        )

    def fp32_embedder(self, folder: Path, preprocessing: Preprocessing) -> OpenVinoEmbedder:
        """Runs the float network on the same engine."""
        return OpenVinoEmbedder(folder / FP32_XML, preprocessing, self._device, self._isa)

    def latency(
        self,
        folder: Path,
        *,
        crop: NDArray[np.uint8],
        preprocessing: Preprocessing,
        progress: Progress,
    ) -> Latency:
        """Time the artifact against the float network on one crop [1, 112, 112, 3].

        Raises:
            DeviceError: the device is absent or refuses a model.
        """
        limit_isa(self._isa)
        return measure(
            folder / INT8_XML,
            folder / FP32_XML,
            crop,
            preprocessing,
            device=self._device,
            properties=self._properties(folder),
            progress=progress,
        )

    def notes(self, overflow_fix: str) -> tuple[str, ...]:
        """What a reader must know about this machine as a stand-in for the target."""
        notes = []
        vnni = has_vnni(environment.cpu_flags())
        if overflow_fix == "disable" and not vnni:
            notes.append(
                "This CPU has no VNNI: its INT8 sums of u8 x s8 pairs saturate in 16 bits, so the "
                "accuracy measured here is below what a CPU with VNNI computes."
            )
        if self._isa:
            notes.append(f"OpenVINO was held to {self._isa} kernels, as the target demands.")
        return tuple(notes)
