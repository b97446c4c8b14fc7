"""The benchmark of rendered faces as an image set: what an installation without data uses."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from mfn_compile.demo import benchmark
from mfn_compile.demo.faces import render
from mfn_compile.evaluate.decode import map_cores
from mfn_compile.evaluate.imageset import Dataset, Indices, combine_digests
from mfn_compile.evaluate.pairs import PairSet
from mfn_compile.model.preprocessing import CROP_SIZE

_BATCH = 16  # pictures a thread renders at a time
_NOTE = "The images are rendered faces, not photographs."


@dataclass(frozen=True, eq=False)
class RenderedImages:
    """Pictures that follow from their seeds alone.

    Args:
        seeds: identity and shot seed of N pictures.
    """

    seeds: benchmark.Seeds
    notes: tuple[str, ...] = (_NOTE,)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names such as `rendered/400012_04`."""
        return self.seeds.names

    @cached_property
    def identities(self) -> tuple[str, ...]:
        """Identity seeds in words."""
        return tuple(str(seed) for seed in self.seeds.identity.tolist())

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the seeds and the renderer's source."""
        return combine_digests(renderer_sha256(), *self.names)

    def content_hashes(self, indices: Indices) -> tuple[str, ...]:
        """SHA-256 over the seeds and the renderer's source: they determine the picture."""
        return tuple(combine_digests(renderer_sha256(), self.names[i]) for i in indices.tolist())

    def crops(self, indices: Indices) -> NDArray[np.uint8]:
        """Render: uint8 RGB [n, 112, 112, 3]."""
        who, which = self.seeds.identity[indices], self.seeds.shot[indices]
        crops = np.empty((len(indices), CROP_SIZE, CROP_SIZE, 3), np.uint8)

        def fill(start: int) -> None:
            part = slice(start, start + _BATCH)
            crops[part] = render(who[part], which[part])

        for _ in map_cores(fill, range(0, len(indices), _BATCH)):
            pass
        return crops


@cache
def renderer_sha256() -> str:
    """SHA-256 over the source of the renderer: any change of it is a change of the pictures."""
    digest = hashlib.sha256()
    for entry in sorted(files("mfn_compile.demo").iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".py"):
            digest.update(entry.name.encode() + b"\0" + entry.read_bytes())
    return digest.hexdigest()


def open_rendered() -> Dataset:
    """The held-out pairs over rendered people, ten folds as in LFW View 2."""
    table = benchmark.pairs()
    pairs = PairSet(table.first, table.second, table.same, table.fold)
    return Dataset("rendered faces", RenderedImages(table.images), pairs, rendered=True)
