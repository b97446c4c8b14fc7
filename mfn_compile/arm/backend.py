"""The TVM backend: a library for firmware, its golden vectors and its proof."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mfn_compile import environment
from mfn_compile.arm.artifact import FOLDER, make_firmware
from mfn_compile.arm.embedder import IntegerEmbedder
from mfn_compile.arm.graph import Conv, FloatConv, IntegerGraph
from mfn_compile.arm.reader import read_graph
from mfn_compile.arm.schedules import shipped
from mfn_compile.errors import InternalCheckError
from mfn_compile.evaluate.onnx_embedder import OnnxRuntimeEmbedder
from mfn_compile.hashing import value_sha256
from mfn_compile.model.preprocessing import Preprocessing
from mfn_compile.progress import Progress
from mfn_compile.records import Records
from mfn_compile.results import BackendResult, CheckpointInfo, Latency, Precision
from mfn_compile.target import Target
from mfn_compile.vectors import cosines

DEVICE_ONLY = {"board", "budget"}  # of a target: what decides a time, and no bit of the artifact
QDQ, FP32 = "network_int8_qdq.onnx", "network_fp32.onnx"


class TvmBackend:
    """Compiles for one AArch64 target; runs the same integers on this machine.

    Attributes:
        code: sub-packages whose source decides the artifact.
        tools: distributions whose versions decide the artifact.
    """

    code: tuple[str, ...] = (
        "arm",
        "evaluate",
        "intel",
        "model",
        "onnx_session",
        "rounding",
        "vectors",
    )
    tools: tuple[str, ...] = (
        "apache-tvm",
        "apache-tvm-ffi",
        "capstone",
        "onnx",
        "onnxruntime",
        "openvino",
        "ziglang",
    )
    measures_latency = False

    def __init__(self, target: Target, tuned: Mapping[str, Records] | None = None) -> None:
        """`tuned` has records by LLVM's name of a core, which go before the shipped ones."""
        assert target.code is not None
        self._target = target
        self._schedules = tuple(
            replace(shipped(v.cpu, v.name), records=tuned[v.cpu])
            if tuned and v.cpu in tuned
            else shipped(v.cpu, v.name)
            for v in target.code.variants
        )

    def machine(self) -> dict[str, object]:
        """What decides the artifact beside the network; part of the stages' keys."""
        from mfn_compile.arm.firmware.linker import find_compiler  # noqa: PLC0415
        from mfn_compile.arm.firmware.proof import find_emulator  # noqa: PLC0415

        compiler = find_compiler()
        return {
            "records": [s.records and s.records.model_dump(mode="json") for s in self._schedules],
            "target": value_sha256(self._target.model_dump(mode="json", exclude=DEVICE_ONLY)),
            "compiler": None if compiler is None else compiler.kind,
            "emulator": find_emulator() is not None,
            "openvino on": environment.relevant_flags(),
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
        """Write the firmware files to `folder`, prove them, compare with the outside judges.

        Args:
            judged: uint8 RGB crops [N, 112, 112, 3] on which ONNX Runtime, without graph
                optimizations, and OpenVINO execute the QDQ file beside the integer network.

        Raises:
            BadInputError: the QDQ file has a layer that the integer graph does not take.
            InternalCheckError: two of oracle, host code and library differ in a bit, or the
                machine code is not what it must be.
            DeviceError: the linker or the emulator is there and failed.
        """
        assert self._target.code is not None
        shutil.copyfile(qdq, folder / QDQ)
        shutil.copyfile(fp32, folder / FP32)
        graph = read_graph(qdq, checkpoint.preprocessing)
        ours = self.embedder(folder, checkpoint.preprocessing)
        firmware = make_firmware(
            graph,
            self._target,
            checkpoint,
            qdq,
            judged,
            ours,
            folder / FOLDER,
            progress,
            self._schedules,
        )
        with progress.task("comparing with ONNX Runtime", 1) as task:
            judge = OnnxRuntimeEmbedder(
                qdq, checkpoint.preprocessing, optimize=False, threads=environment.cores()
            )
            cosine = cosines(ours.embed(judged), judge.embed(judged))
            task.advance()
        return BackendResult(
            files=_names(folder / FOLDER),
            precision=precision(graph),
            judge_cosine=float(cosine.mean()),
            judge_min_cosine=float(cosine.min()),
            judge_images=len(judged),
            firmware=firmware,
        )

    def shipped(self, folder: Path, result: BackendResult) -> dict[str, Path]:
        """Files of the bundle, by their path in it."""
        return {name: folder / FOLDER / name for name in result.files}

    def bundle(self, folder: Path) -> Path:
        """The folder of a finished build with lib/, include/ and golden/, as in a bundle."""
        return folder / FOLDER

    def embedder(self, folder: Path, preprocessing: Preprocessing) -> IntegerEmbedder:
        """Runs the INT8 artifact's integers of a finished build."""
        return IntegerEmbedder(folder / QDQ, preprocessing)

    def fp32_embedder(self, folder: Path, preprocessing: Preprocessing) -> OnnxRuntimeEmbedder:
        """Runs the float network."""
        return OnnxRuntimeEmbedder(
            folder / FP32, preprocessing, optimize=True, threads=environment.cores()
        )

    def latency(
        self,
        folder: Path,
        *,
        crop: NDArray[np.uint8],
        preprocessing: Preprocessing,
        progress: Progress,
    ) -> Latency:
        """There is no device: a latency is not stated.

        Raises:
            InternalCheckError: always; `measures_latency` says so beforehand.
        """
        raise InternalCheckError("A latency was asked of a backend that measures none")

    def notes(self, overflow_fix: str) -> tuple[str, ...]:
        """What a reader must know about this machine as a stand-in for the target."""
        return (
            "Drift was measured with the library's own integers, computed on this machine's CPU; "
            "that the library computes the same bits is what its golden vectors prove, wherever "
            "they were run.",
        )


def precision(graph: IntegerGraph) -> Precision:
    """Which layers compute in int8."""
    kinds: dict[str, int] = {}
    for node in graph.nodes:
        if not isinstance(node, (Conv, FloatConv)):
            kinds[type(node).__name__] = kinds.get(type(node).__name__, 0) + 1
    return Precision(
        int8_layers=sum(isinstance(node, Conv) for node in graph.nodes),
        float_layers=tuple(
            f"{node.name}: f32" for node in graph.nodes if isinstance(node, FloatConv)
        ),
        other_layers=kinds,
    )


def _names(folder: Path) -> tuple[str, ...]:
    return tuple(
        sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    )
