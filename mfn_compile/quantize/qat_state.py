"""A fine-tuning under way, on disk, so that a killed one goes on where it was."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from mfn_compile.errors import DeviceError
from mfn_compile.results import QatStep


@dataclass
class TrainingState:
    """Steps done, what was logged, and the best network so far."""

    step: int = 0
    history: list[QatStep] = field(default_factory=list)
    best: dict[str, Tensor] | None = None
    best_cosine: float = -1.0


def save_state(
    path: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: TrainingState,
) -> None:
    """Write the whole state beside its place and rename it, so that no half file is read.

    Raises:
        DeviceError: the file cannot be written.
    """
    content = {
        "step": state.step,
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "best": state.best,
        "best_cosine": state.best_cosine,
        "history": [entry.model_dump() for entry in state.history],
    }
    aside = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, aside)
        os.replace(aside, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        aside.unlink(missing_ok=True)
        raise DeviceError(
            "The state of the fine-tuning cannot be written",
            where=str(path),
            why=str(error),
            hint="Free some space and run again; it goes on from the last state",
        ) from error


def load_state(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer
) -> TrainingState | None:
    """Restore a state into `network` and `optimizer`; None when there is none."""
    try:
        content = torch.load(path, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
        return None  # absent or damaged: training starts over
    network.load_state_dict(content["network"])
    optimizer.load_state_dict(content["optimizer"])
    history = [QatStep.model_validate(entry) for entry in content["history"]]
    return TrainingState(content["step"], history, content["best"], content["best_cosine"])
