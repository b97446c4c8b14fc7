"""Quantization recipes: how a network is quantized, one TOML in calib/ or the user's own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from mfn_compile.frozen import Frozen
from mfn_compile.hashing import value_sha256
from mfn_compile.resources import data_dir
from mfn_compile.tomlfile import find_named, load_model

ActivationRange = Literal["auto", "min_max", "mean", "percentile", "mse"]


class CalibrationPlan(Frozen):
    """How many images do what."""

    images: int = Field(default=300, ge=1, le=100_000, description="images that set the ranges")
    held_out: int = Field(default=256, ge=1, le=100_000, description="images that judge candidates")
    seed: int = Field(default=0, ge=0, lt=2**32, description="of every random choice")


class Ptq(Frozen):
    """Post-training quantization."""

    preset: Literal["performance", "mixed"] = Field(
        default="performance",
        description="performance: symmetric activations; mixed: with zero points",
    )
    activation_range: ActivationRange = "auto"
    percentile: float = Field(default=99.99, gt=50.0, le=100.0)
    per_channel_depthwise_activations: bool = True
    bias_correction: Literal["fast", "full", "none"] = "fast"
    equalization: float = Field(
        default=0.0,
        ge=0.0,
        le=1.0,
        description="share of the channels' range differences moved from activations to weights",
    )
    float_layers: tuple[str, ...] = ()

    @field_validator("float_layers")
    @classmethod
    def _patterns_compile(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
        return patterns


class Qat(Frozen):
    """Quantization-aware fine-tuning, distilled from the float network."""

    steps: int = Field(default=200, ge=1, le=1_000_000)
    batch_size: int = Field(default=32, ge=1, le=4096)
    learning_rate: float = Field(
        default=1e-3, gt=0, le=1, description="of weights, relative to their size a tensor"
    )
    range_learning_rate: float = Field(
        default=1e-3, ge=0, le=1, description="of the quantization ranges, relative to their size"
    )
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: int = Field(default=10, ge=0)
    feature_weight: float = Field(
        default=0.1, ge=0, description="weight of the embeddings' relative squared error"
    )
    eval_every: int = Field(default=50, ge=1)
    checkpoint_every: int = Field(default=20, ge=1)
    threads: int = Field(default=0, ge=0, le=1024, description="0: one a core")

    @model_validator(mode="after")
    def _warmup_fits(self) -> Qat:
        if self.warmup >= self.steps:
            raise ValueError(f"warmup {self.warmup} leaves nothing of {self.steps} steps")
        return self


class Recipe(Frozen):
    """How one network is quantized; what the device demands is in its target instead."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    description: str
    calibration: CalibrationPlan = CalibrationPlan()
    ptq: Ptq = Ptq()
    qat: Qat = Qat()

    def to_json(self) -> str:
        """The recipe with every default written out, as a document for the bundle."""
        return self.model_dump_json(indent=2) + "\n"

    def digest(self) -> str:
        """SHA-256 of the recipe's content."""
        return value_sha256(self.model_dump(mode="json"))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """A shipped recipe by name, or the user's own TOML by path.

    Raises:
        BadInputError: unknown name, unreadable file, wrong key or value.
    """
    return load_model(find_named(name_or_path, data_dir("calib"), "recipe"), Recipe, "recipe")


def list_recipes() -> tuple[Recipe, ...]:
    """Every shipped recipe, by name."""
    paths = sorted(data_dir("calib").glob("*.toml"), key=lambda path: path.stem)
    return tuple(load_model(path, Recipe, "recipe") for path in paths)
