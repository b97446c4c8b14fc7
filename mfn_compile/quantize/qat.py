"""Quantization-aware fine-tuning: the quantized network learns to give the float embeddings."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mfn_compile.errors import InternalCheckError
from mfn_compile.model.network import MobileFaceNet
from mfn_compile.model.preprocessing import Preprocessing
from mfn_compile.progress import Progress, Task
from mfn_compile.quantize.held_out import HeldOut
from mfn_compile.quantize.nncf_network import (
    embed,
    fake_quantized,
    float_network,
    is_range,
    to_qdq,
)
from mfn_compile.quantize.onnxruntime_session import Floats, Judge
from mfn_compile.quantize.qat_state import TrainingState, load_state, save_state
from mfn_compile.recipe import Qat, Recipe
from mfn_compile.results import QatInfo, QatStep
from mfn_compile.target import OverflowFix

FORWARD_BATCH = 32  # images a run when held-out crops are judged in torch


@dataclass(frozen=True, eq=False)
class FineTuning:
    """What is fine-tuned, and on what.

    Attributes:
        module: float network without BatchNorm, where the student starts.
        teacher: the same network as ONNX.
        images: preprocessed calibration images float32 [N, 3, H, W]: the ranges it starts with.
        crops: uint8 RGB [n, 112, 112, 3] to learn from; no labels are needed.
        preprocessing: input contract of the network.
        recipe: how to quantize and to train.
        overflow_fix: what the device demands.
        state_file: where the training is kept, to go on after a kill; of this very job.
    """

    module: MobileFaceNet
    teacher: Path
    images: Floats
    crops: NDArray[np.uint8]
    preprocessing: Preprocessing
    recipe: Recipe
    overflow_fix: OverflowFix
    state_file: Path


class FineTuned(NamedTuple):
    """The fine-tuned QDQ network, the float network whose weights it rounds, how it went."""

    qdq: onnx.ModelProto
    latent: onnx.ModelProto
    info: QatInfo


def fine_tune(job: FineTuning, held_out: HeldOut, progress: Progress) -> FineTuned:
    """The fine-tuned QDQ network with the best held-out cosine seen, and how it went.

    A training that was killed goes on from its state file and ends with the same network.

    Raises:
        InternalCheckError: the loss is not finite.
    """
    settings = job.recipe.qat
    with _threads(settings.threads):
        with progress.task("fine-tuning: starting ranges", 1) as task:
            network = fake_quantized(job.module, job.images, job.recipe, job.overflow_fix)
            targets = _Targets(job)
            task.advance()
        optimizer = _optimizer(network, settings)
        state = load_state(job.state_file, network, optimizer) or TrainingState()
        with progress.task("fine-tuning", settings.steps) as task:
            if state.step:
                task.advance(state.step, note=f"resumed after step {state.step}")
            _train(job, network, optimizer, state, targets, held_out, task)
        assert state.best is not None
        network.load_state_dict(state.best)
        tuned = to_qdq(network, job.images[:1])
        latent = float_network(network, job.module, job.images[:1])
    info = QatInfo(
        steps=settings.steps,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        images=len(job.crops),
        history=tuple(state.history),
    )
    return FineTuned(tuned, latent, info)


class _Targets:
    """Batches by step number, with the teacher's embeddings of the crops and their mirrors."""

    def __init__(self, job: FineTuning) -> None:
        self._crops, self._preprocessing = job.crops, job.preprocessing
        self._size, self._seed = job.recipe.qat.batch_size, job.recipe.calibration.seed
        teacher = Judge(job.teacher, optimized=True)
        self._embeddings = [
            torch.from_numpy(
                np.concatenate([teacher.embed(job.preprocessing.apply(c)) for c in _chunks(crops)])
            )
            for crops in (job.crops, job.crops[:, :, ::-1])
        ]

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images [B, 3, H, W] and teacher embeddings [B, D] of a step, the same in every run."""
        places = np.arange(step * self._size, (step + 1) * self._size)
        epochs, indices = np.divmod(places, len(self._crops))
        chosen = np.array([self._order(e)[i] for e, i in zip(epochs, indices, strict=True)])
        mirror = np.random.default_rng((self._seed, 1, step)).random(self._size) < 0.5
        crops = self._crops[chosen].copy()
        crops[mirror] = crops[mirror, :, ::-1]
        targets = torch.stack(
            [self._embeddings[int(m)][i] for i, m in zip(chosen, mirror, strict=True)]
        )
        return torch.from_numpy(self._preprocessing.apply(crops)), targets

    @lru_cache(maxsize=2)  # noqa: B019 - lives as long as the training
    def _order(self, epoch: int) -> NDArray[np.int64]:
        generator = np.random.default_rng((self._seed, 0, int(epoch)))
        return generator.permutation(len(self._crops))


def distillation_loss(student: Tensor, teacher: Tensor, feature_weight: float) -> Tensor:
    """Mean of 1 - cosine plus `feature_weight` times the relative squared error, [N, D] each."""
    cosine = torch.nn.functional.cosine_similarity(student, teacher, dim=1)
    error = (student - teacher).square().sum(1) / teacher.square().sum(1).clamp(min=1e-12)
    return (1 - cosine + feature_weight * error).mean()


def rate_factor(step: int, settings: Qat) -> float:
    """Share of the learning rate at `step`: linear warm-up, then the recipe's schedule."""
    if step < settings.warmup:
        return (step + 1) / (settings.warmup + 1)
    if settings.schedule == "constant":
        return 1.0
    done = (step - settings.warmup) / max(settings.steps - settings.warmup, 1)
    return 0.5 * (1 + math.cos(math.pi * done))


def _train(
    job: FineTuning,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: TrainingState,
    targets: _Targets,
    held_out: HeldOut,
    task: Task,
) -> None:
    settings = job.recipe.qat
    while state.step < settings.steps:
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * rate_factor(state.step, settings)
        images, teacher = targets.batch(state.step)
        optimizer.zero_grad(set_to_none=True)
        loss = distillation_loss(network(images), teacher, settings.feature_weight)
        if not torch.isfinite(loss):
            raise InternalCheckError(
                f"The loss of step {state.step + 1} is not finite",
                where="fine-tuning",
                hint="Lower qat.learning_rate in the recipe",
            )
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        state.step += 1
        value = loss.item()
        last = state.step == settings.steps
        if last or state.step % settings.eval_every == 0:
            _judge(network, state, held_out, value)
        if last or state.step % settings.checkpoint_every == 0:
            save_state(job.state_file, network, optimizer, state)
        task.advance(note=_note(state, value))


def _judge(network: nn.Module, state: TrainingState, held_out: HeldOut, loss: float) -> None:
    """Log the held-out cosine, and keep the network when it is the best so far."""
    found = held_out.agreement(embed(network, held_out.images))
    state.history.append(QatStep(step=state.step, loss=loss, held_out_cosine=found.mean))
    if state.best is None or found.mean > state.best_cosine:
        state.best_cosine = found.mean
        state.best = {k: v.clone() for k, v in network.state_dict().items()}


def _note(state: TrainingState, loss: float) -> str:
    cosine = f", held-out cosine {state.history[-1].held_out_cosine:.5f}" if state.history else ""
    return f"loss {loss:.5f}{cosine}"


def _optimizer(network: nn.Module, settings: Qat) -> torch.optim.Optimizer:
    """Adam with a rate a tensor, relative to the root mean square of its values.

    Folded convolutions differ in scale by orders of magnitude; one absolute rate would move some
    weights by many quantization steps and leave others where they are.
    """
    groups = []
    for name, parameter in network.named_parameters():
        rate = settings.range_learning_rate if is_range(name) else settings.learning_rate
        if not parameter.requires_grad or rate == 0:
            parameter.requires_grad_(False)
            continue
        size = float(parameter.detach().square().mean().sqrt()) or 1e-3
        groups.append({"params": [parameter], "lr": rate * size, "base": rate * size})
    return torch.optim.Adam(groups, betas=(0.9, 0.99))


def _chunks(array: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(array), FORWARD_BATCH):
        yield array[start : start + FORWARD_BATCH]


@contextmanager
def _threads(wanted: int) -> Iterator[None]:
    """Torch on the cores that this process may use: more threads than cores cost tenfold."""
    before = torch.get_num_threads()
    torch.set_num_threads(wanted or len(os.sched_getaffinity(0)))
    try:
        yield
    finally:
        torch.set_num_threads(before)
