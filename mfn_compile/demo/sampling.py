"""Draw frozen dataclasses of parameters from seeded random streams.

A parameter class states the distribution of every field next to the field itself, with
:func:`normal` or :func:`uniform`; :func:`draw` then fills the class from one generator.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")

# Normal parameters are clipped here, so that no face has a grotesque outlier.
CLIP_SIGMA = 2.2


def normal(mean: float, sigma: float) -> Any:
    """Declare a field that follows a normal distribution, clipped at ``CLIP_SIGMA`` sigma."""
    return dataclasses.field(metadata={"loc": mean, "scale": sigma, "uniform": False})


def uniform(low: float, high: float) -> Any:
    """Declare a field that is spread evenly over ``[low, high)``."""
    middle, half = (low + high) / 2, (high - low) / 2
    return dataclasses.field(metadata={"loc": middle, "scale": half, "uniform": True})


@cache
def _table(
    cls: type[Any],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[Any]]:
    rows = [field.metadata for field in dataclasses.fields(cls)]
    loc = np.array([row["loc"] for row in rows])
    scale = np.array([row["scale"] for row in rows])
    return loc, scale, np.array([row["uniform"] for row in rows])


def draw(cls: type[T], rng: np.random.Generator) -> T:
    """Fill the parameter class ``cls`` from ``rng``, one value per declared field."""
    kind: Any = cls  # a type is hashable, which mypy does not see
    loc, scale, is_uniform = _table(kind)
    gauss = np.clip(rng.standard_normal(loc.size), -CLIP_SIGMA, CLIP_SIGMA)
    even = 2.0 * rng.random(loc.size) - 1.0
    values = loc + scale * np.where(is_uniform, even, gauss)
    return cls(*values.tolist())


def generator(*key: int) -> np.random.Generator:
    """A PCG64 generator that depends on the integers of ``key`` only."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))
