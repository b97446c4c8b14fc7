"""Which crops do what in a run: calibrate, judge candidates, fine-tune, and evaluate.

The four never overlap: calibration crops set the ranges, held-out crops choose between candidates,
fine-tuning crops are learned from, and the pairs are only ever looked at by the evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mfn_compile.demo import benchmark as rendered
from mfn_compile.errors import BadInputError, UsageError
from mfn_compile.evaluate.datasets import open_dataset
from mfn_compile.evaluate.folder import open_images
from mfn_compile.evaluate.imageset import Dataset, ImageSet, Indices
from mfn_compile.evaluate.lfw import LfwImages
from mfn_compile.evaluate.rendered import RenderedImages, open_rendered
from mfn_compile.hashing import value_sha256
from mfn_compile.recipe import CalibrationPlan
from mfn_compile.request import DataSource

RENDERED_FINE_TUNING = 2048  # rendered crops to learn from
MIN_CALIBRATION = 16  # fewer images leave the ranges to chance


@dataclass(frozen=True, eq=False)
class CropPool:
    """Some images of a set, read when they are needed."""

    images: ImageSet
    indices: Indices

    def __len__(self) -> int:
        return len(self.indices)

    def crops(self, limit: int | None = None) -> NDArray[np.uint8]:
        """uint8 RGB [n, 112, 112, 3] of the first `limit` images, or of all."""
        return self.images.crops(self.indices[:limit])

    def hashes(self) -> tuple[str, ...]:
        """SHA-256 of every image."""
        return self.images.content_hashes(self.indices)

    def identities(self) -> tuple[str, ...] | None:
        """Who the images show, where the set says so."""
        known = self.images.identities
        return None if known is None else tuple(known[i] for i in self.indices)

    def digest(self) -> str:
        """SHA-256 of everything that determines the crops."""
        return value_sha256([self.images.digest, self.indices.tolist()])


@dataclass(frozen=True)
class Material:
    """Crops of one run; `dataset` None means that nothing is evaluated."""

    source: str
    dataset: Dataset | None
    calibration: CropPool
    held_out: CropPool
    fine_tuning: CropPool

    def notes(self) -> tuple[str, ...]:
        """What a user should read before trusting the numbers, each sentence once."""
        sets = [self.calibration.images, self.held_out.images]
        if self.dataset is not None:
            sets.insert(0, self.dataset.images)
        return tuple(dict.fromkeys(note for images in sets for note in images.notes))


def gather(data: DataSource, *, demo: bool, plan: CalibrationPlan) -> Material:
    """Open the user's images and share them out.

    Args:
        demo: the checkpoint is the demo model, for which rendered faces are the right input.
        plan: how many images calibrate and judge, and the seed of the shuffle that shares a
            folder out.

    Raises:
        UsageError: the options contradict each other, or calibration images are missing.
        BadInputError: images or pairs cannot be used.
    """
    dataset = open_evaluation(data, demo=demo)
    if dataset is None and data.calibration is None:
        raise UsageError(
            "There are no images for this checkpoint",
            why="Ranges calibrated on rendered faces would be wrong for a model of real ones",
            hint="Give --lfw LFW_HOME, --benchmark SET.bin, --images DIR with --pairs FILE, "
            "or at least --calibration DIR",
        )
    if data.calibration is not None:
        images = open_images(data.calibration)
        everything = np.arange(len(images.names), dtype=np.int64)
        return _share(f"folder {data.calibration.name}", dataset, images, everything, plan)
    assert dataset is not None
    if isinstance(dataset.images, RenderedImages):
        return _rendered(dataset, plan)
    if isinstance(dataset.images, LfwImages):
        return _lfw(dataset, dataset.images, plan)
    spare = np.setdiff1d(
        np.arange(len(dataset.images.names), dtype=np.int64), dataset.pairs.images()
    )
    if len(spare) < MIN_CALIBRATION:
        raise UsageError(
            f"{dataset.name} has no images to spare for calibration",
            why="Every image occurs in its pairs, and calibrating on them would flatter the result",
            hint="Give a folder of other aligned crops with --calibration",
        )
    return _share(
        f"{dataset.name}, images outside of the pairs", dataset, dataset.images, spare, plan
    )


def open_evaluation(data: DataSource, *, demo: bool) -> Dataset | None:
    """The pairs to evaluate on: the user's, or for the demo model the rendered ones, or none.

    Raises:
        BadInputError: images or pairs cannot be used.
    """
    path = data.lfw or data.benchmark or data.images
    if path is not None:
        return open_dataset(path, pairs=data.pairs)
    if demo:
        return open_rendered()
    return None


def rendered_crops(count: int) -> CropPool:
    """Rendered faces, for what needs no real ones."""
    images = RenderedImages(rendered.calibration_seeds(count))
    return CropPool(images, np.arange(count, dtype=np.int64))


def _rendered(dataset: Dataset, plan: CalibrationPlan) -> Material:
    others = RenderedImages(rendered.unlabeled_seeds(plan.held_out + RENDERED_FINE_TUNING))
    positions = np.arange(len(others.names), dtype=np.int64)
    return Material(
        source="rendered faces",
        dataset=dataset,
        calibration=rendered_crops(plan.images),
        held_out=CropPool(others, positions[: plan.held_out]),
        fine_tuning=CropPool(others, positions[plan.held_out :]),
    )


def _lfw(dataset: Dataset, images: LfwImages, plan: CalibrationPlan) -> Material:
    """LFW sets 300 images aside for calibration; strangers to the pairs judge and teach."""
    in_pairs = {images.identities[i] for i in dataset.pairs.images()}
    rest = images.split("rest")
    strangers = np.array([i for i in rest if images.identities[i] not in in_pairs], np.int64)
    shuffled = np.random.default_rng(plan.seed).permutation(strangers)
    chosen = images.split("calib")[: plan.images]
    _require(len(chosen), len(shuffled) - plan.held_out, "LFW")
    return Material(
        source="LFW, images outside of the pairs",
        dataset=dataset,
        calibration=CropPool(images, chosen),
        held_out=CropPool(images, shuffled[: plan.held_out]),
        fine_tuning=CropPool(images, shuffled[plan.held_out :]),
    )


def _share(
    source: str,
    dataset: Dataset | None,
    images: ImageSet,
    available: Indices,
    plan: CalibrationPlan,
) -> Material:
    """Shuffle a folder and cut it; a small folder keeps a fifth for judging."""
    shuffled = np.random.default_rng(plan.seed).permutation(available)
    judge = min(plan.held_out, len(shuffled) // 5)
    ranged = min(plan.images, len(shuffled) - judge)
    _require(ranged, judge, source)
    return Material(
        source=source,
        dataset=dataset,
        calibration=CropPool(images, np.sort(shuffled[:ranged])),
        held_out=CropPool(images, np.sort(shuffled[ranged : ranged + judge])),
        fine_tuning=CropPool(images, shuffled[ranged + judge :]),
    )


def _require(calibration: int, others: int, source: str) -> None:
    if calibration < MIN_CALIBRATION or others < 1:
        raise BadInputError(
            f"Too few images to calibrate on: {calibration}",
            where=source,
            hint=f"Give at least {MIN_CALIBRATION * 2} aligned crops",
        )
