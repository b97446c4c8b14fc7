"""The quantize stage: PTQ, optionally fine-tuning, the better one on held-out crops wins."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from mfn_compile.errors import UsageError
from mfn_compile.files import write_whole
from mfn_compile.model.network import MobileFaceNet
from mfn_compile.model.preprocessing import Preprocessing
from mfn_compile.progress import Progress
from mfn_compile.quantize.calibration import (
    CalibrationData,
    check_crops,
    check_disjoint,
    describe,
)
from mfn_compile.quantize.exact import to_exact_grid
from mfn_compile.quantize.gauge import gauged
from mfn_compile.quantize.held_out import Agreement, HeldOut
from mfn_compile.quantize.onnxruntime_session import Floats
from mfn_compile.quantize.ptq import post_training_quantize, prepare, spread
from mfn_compile.quantize.qat import FineTuned, FineTuning, fine_tune
from mfn_compile.quantize.qdq import check_sound, load_model, summarize
from mfn_compile.quantize.sensitivity import layer_errors
from mfn_compile.recipe import Recipe
from mfn_compile.results import QuantizeCandidate, QuantizeResult
from mfn_compile.target import GridChoice, OverflowFix

FILE_NAME = "model_int8_qdq.onnx"
PTQ_NAME = "ptq.onnx"
STATE_NAME = "qat_state.pt"
SENSITIVITY_CROPS = 8
GRID_IMAGES = 64  # calibration images over which the exact grid keeps the mean of every channel
Crops = NDArray[np.uint8]


class _Networks(NamedTuple):
    """A QDQ network, and the float network that its tensors stand for."""

    qdq: onnx.ModelProto
    reference: onnx.ModelProto


@dataclass(frozen=True, eq=False)
class _Candidate:
    method: Literal["ptq", "qat"]
    model: onnx.ModelProto
    reference: onnx.ModelProto  # float network that the model's tensors stand for
    agreement: Agreement

    def summary(self) -> QuantizeCandidate:
        return QuantizeCandidate(
            method=self.method,
            held_out_cosine=self.agreement.mean,
            held_out_min_cosine=self.agreement.minimum,
        )


@dataclass(frozen=True, eq=False)
class QuantizeJob:
    """What is quantized, and with which crops.

    Attributes:
        fp32_onnx: float network with BatchNorm folded.
        recipe: how to quantize.
        overflow_fix: what the device demands: half-range weights nowhere, in the first layer, or
            everywhere.
        grid: what the device demands: scales on which float32 sums never round, or any.
        preprocessing: input contract of the network.
        calibration: crops that set the ranges.
        held_out: uint8 RGB [n, 112, 112, 3] that judge the candidates.
        module: the float network in torch without BatchNorm, to fine-tune; None for ONNX input.
        qat_crops: crops to fine-tune on; None for post-training quantization only.
    """

    fp32_onnx: Path
    recipe: Recipe
    overflow_fix: OverflowFix
    grid: GridChoice
    preprocessing: Preprocessing
    calibration: CalibrationData
    held_out: Crops
    module: MobileFaceNet | None = None
    qat_crops: Crops | None = None


def quantize(job: QuantizeJob, out_dir: Path, progress: Progress) -> QuantizeResult:
    """Write `model_int8_qdq.onnx` into `out_dir`. The same job gives the same bytes.

    `out_dir` must exist; what a killed run left there is used: the post-training network, and the
    fine-tuning as far as it had come.

    Raises:
        BadInputError: crops are shared between sets or with the evaluation, or the recipe names a
            layer that is not there.
        UsageError: fine-tuning is asked for, and there is no torch network.
        InternalCheckError: a quantizer is not sound, or a loss is not finite.
        DeviceError: a file cannot be written.
    """
    described = describe(job.calibration)
    _check_crops(job)
    fp32 = load_model(job.fp32_onnx)
    images = job.preprocessing.apply(job.calibration.crops)
    prepared = prepare(fp32, images, job.recipe)
    started = _post_training(job, prepared, images, out_dir / PTQ_NAME, progress)
    networks = _on_grid(job, started, prepared, images, progress)
    with progress.task("judging on held-out crops", 1) as task:
        judge = HeldOut(job.fp32_onnx, job.held_out, job.preprocessing)
        candidates = [_candidate("ptq", networks, judge)]
        task.advance()
    info = None
    if job.qat_crops is not None:
        tuned = fine_tune(_training(job, images, out_dir), judge, progress)
        networks = _tuned_on_grid(job, tuned, fp32, images, progress)
        candidates.append(_candidate("qat", networks, judge))
        info = tuned.info
    best = max(candidates, key=lambda candidate: candidate.agreement.mean)
    content = best.model.SerializeToString(deterministic=True)
    write_whole(out_dir / FILE_NAME, content)
    with progress.task("measuring every layer", 1) as task:
        layers = layer_errors(best.reference, best.model, judge.images[:SENSITIVITY_CROPS])
        task.advance()
    summary = summarize(best.model)
    return QuantizeResult(
        file=FILE_NAME,
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        recipe=job.recipe.name,
        overflow_fix=job.overflow_fix,
        grid=job.grid,
        method=best.method,
        candidates=tuple(candidate.summary() for candidate in candidates),
        held_out_images=len(job.held_out),
        calibration=described,
        quantized_convolutions=summary.quantized_layers,
        float_convolutions=summary.float_layers,
        per_channel_activations=summary.per_channel_activations,
        layers=layers,
        qat=info,
    )


def _check_crops(job: QuantizeJob) -> None:
    check_crops(job.held_out, "held-out")
    sets = {"calibration": job.calibration.crops, "held-out": job.held_out}
    if job.qat_crops is not None:
        check_crops(job.qat_crops, "fine-tuning")
        sets["fine-tuning"] = job.qat_crops
        if job.module is None:
            raise UsageError(
                "--qat needs a checkpoint with weights",
                where=job.fp32_onnx.name,
                why="An ONNX file has no torch network to fine-tune",
                hint="Give the .pt or .safetensors file that the ONNX was exported from",
            )
    check_disjoint(sets)


def _post_training(
    job: QuantizeJob, fp32: onnx.ModelProto, images: Floats, kept: Path, progress: Progress
) -> onnx.ModelProto:
    """The post-training network, from a killed run of the same job where there is one."""
    if kept.is_file():
        return load_model(kept)
    found = post_training_quantize(fp32, images, job.recipe, job.overflow_fix, progress)
    check_sound(summarize(found))
    write_whole(kept, found.SerializeToString(deterministic=True))
    return found


def _on_grid(
    job: QuantizeJob,
    qdq: onnx.ModelProto,
    prepared: onnx.ModelProto,
    images: Floats,
    progress: Progress,
) -> _Networks:
    """The post-training network on the job's grid."""
    if job.grid == "free":
        return _Networks(qdq, prepared)
    corrected = job.recipe.ptq.bias_correction != "none"
    with progress.task("quantizing: exact grid", 1) as task:
        found = to_exact_grid(
            qdq, prepared, spread(images, GRID_IMAGES), means="fp32" if corrected else "qdq"
        )
        task.advance()
    return _Networks(found.qdq, found.fp32)


def _tuned_on_grid(
    job: QuantizeJob, tuned: FineTuned, fp32: onnx.ModelProto, images: Floats, progress: Progress
) -> _Networks:
    """The fine-tuned network on the job's grid; its weights round those that were trained."""
    if job.grid == "free":
        return _Networks(tuned.qdq, fp32)
    with progress.task("fine-tuning: exact grid", 1) as task:
        some = spread(images, GRID_IMAGES)
        found = to_exact_grid(tuned.qdq, tuned.latent, some, means="qdq")
        task.advance()
    return _Networks(found.qdq, gauged(tuned.qdq, fp32)[1])


def _training(job: QuantizeJob, images: Floats, out_dir: Path) -> FineTuning:
    assert job.module is not None
    assert job.qat_crops is not None
    return FineTuning(
        module=job.module,
        teacher=job.fp32_onnx,
        images=images,
        crops=job.qat_crops,
        preprocessing=job.preprocessing,
        recipe=job.recipe,
        overflow_fix=job.overflow_fix,
        state_file=out_dir / STATE_NAME,
    )


def _candidate(method: Literal["ptq", "qat"], networks: _Networks, judge: HeldOut) -> _Candidate:
    check_sound(summarize(networks.qdq))
    agreement = judge.judge(networks.qdq.SerializeToString())
    return _Candidate(method, networks.qdq, networks.reference, agreement)
