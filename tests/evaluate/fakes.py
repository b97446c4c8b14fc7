"""Small stand-ins for image sets and networks, and makers of tiny benchmarks on disk."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mfn_compile.evaluate.pairs import PairSet


@dataclass(eq=False)
class FakeImages:
    """Crops of one grey value an image; `decoded` records what was asked for."""

    count: int
    people: int = 0
    digest: str = "fake"
    notes: tuple[str, ...] = ()
    decoded: list[int] = field(default_factory=list)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"image_{i}" for i in range(self.count))

    @property
    def identities(self) -> tuple[str, ...] | None:
        if not self.people:
            return None
        return tuple(str(i % self.people) for i in range(self.count))

    def content_hashes(self, indices: NDArray[np.int64]) -> tuple[str, ...]:
        return tuple(hashlib.sha256(str(i).encode()).hexdigest() for i in indices)

    def crops(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        self.decoded += indices.tolist()
        crops = np.zeros((len(indices), 112, 112, 3), np.uint8)
        crops[:, :, :56] = indices[:, None, None, None]  # the mirror image differs
        crops[:, :, 56:] = 255 - indices[:, None, None, None]
        return crops


@dataclass(eq=False)
class FakeEmbedder:
    """Embeds by person (image index modulo `people`) with noise; counts calls and can fail."""

    key: str
    people: int
    noise: float = 0.0
    fail_at_call: int = 0
    spoil: dict[int, float] = field(default_factory=dict)
    calls: int = 0
    images: int = 0

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.calls += 1
        if self.calls == self.fail_at_call:
            raise KeyboardInterrupt
        self.images += len(crops)
        rows = []
        for crop in crops:
            left, right = int(crop[0, 0, 0]), int(crop[0, -1, 0])
            index = left if left + right == 255 and left < 128 else right
            base = np.random.default_rng(index % self.people).standard_normal(16)
            extra = np.random.default_rng([7, left]).standard_normal(16)
            rows.append((base + self.noise * extra) * self.spoil.get(index, 1.0))
        return np.array(rows, np.float32)


def make_pairs(count: int, people: int, folds: int = 5, seed: int = 0) -> PairSet:
    """Balanced pairs over images whose person is the index modulo `people`."""
    rng = np.random.default_rng(seed)
    first, second = np.triu_indices(count, k=1)
    same = first % people == second % people
    size = int(min(same.sum(), (~same).sum(), 20 * folds)) // folds * folds
    kept = [rng.choice(np.flatnonzero(kind), size, replace=False) for kind in (same, ~same)]
    fold = np.tile(np.arange(folds), 2 * size // folds)
    chosen = np.concatenate(kept)
    return PairSet(first[chosen], second[chosen], same[chosen], fold)


def encode(pixels: NDArray[np.uint8], kind: str = "JPEG") -> bytes:
    """Pixels as an encoded image."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def picture(seed: int, height: int = 112, width: int = 112) -> NDArray[np.uint8]:
    """A smooth random RGB picture."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height)))


def write_picture(path: Path, seed: int, height: int = 112, width: int = 112) -> None:
    """A JPEG file; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(picture(seed, height, width)))


def write_lfw(home: Path, drop: str = "", folds: int = 2) -> Path:
    """A tiny lfw_home of 6 people with 3 images each; returns the landmark table."""
    template = [(91.0, 112.0), (160.0, 112.0), (125.0, 150.0), (97.0, 190.0), (153.0, 190.0)]
    header = "image," + ",".join(f"x{i},y{i}" for i in range(5)) + ",split"
    rows, lines = [header], [f"{folds}\t3"]
    for person in range(6):
        for shot in range(1, 4):
            name = f"P_{person}_{shot:04d}"
            if name != drop:
                path = home / "lfw_funneled" / f"P_{person}" / f"{name}.jpg"
                grey = picture(10 * person + shot, 250, 250)[..., :1].repeat(3, axis=2)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encode(grey))
            points = ",".join(f"{x + person},{y}" for x, y in template)
            rows.append(f"{name},{points},{'pairs' if shot < 3 else 'calib'}")
    for fold in range(folds):
        people = [(3 * fold + i) % 6 for i in range(3)]
        lines += [f"P_{p}\t1\t2" for p in people]
        lines += [f"P_{people[i]}\t1\tP_{people[(i + 1) % 3]}\t2" for i in range(3)]
    (home / "pairs.txt").write_text("\n".join(lines) + "\n")
    table = home / "landmarks.csv"
    table.write_text("\n".join(rows) + "\n")
    return table
