"""What each engine's model does to a pairs benchmark, computed with its wheel for this machine."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mfn_compile.bench.results import Drift
from mfn_compile.evaluate.chunk_cache import ChunkCache
from mfn_compile.evaluate.embeddings import Embedder, embed_all
from mfn_compile.evaluate.imageset import Dataset
from mfn_compile.evaluate.pairs import PairSet
from mfn_compile.evaluate.verification import (
    FoldOutcome,
    normalize,
    pair_scores,
    retest_folds,
    run_folds,
)
from mfn_compile.progress import Progress
from mfn_compile.store import Store

CHUNK = 2048  # images that one start of a peer embeds
Name = tuple[str, str]


def measure(
    dataset: Dataset,
    fp32: Embedder,
    embedders: Mapping[Name, Embedder],
    store: Store,
    progress: Progress,
) -> dict[Name, Drift]:
    """Drift of every network on the pairs; embeddings of finished chunks are kept.

    Raises:
        BadInputError: an image cannot be used.
        InternalCheckError: an embedding is zero or not finite.
        DeviceError: an engine failed.
    """
    used = dataset.pairs.images()
    found = embed_all(
        dataset.images,
        used,
        (fp32, *embedders.values()),
        flip=False,
        cache=ChunkCache(store.folder("embeddings")),
        progress=progress,
        chunk=CHUNK,
        title="Embedding the images of the pairs",
    )
    pairs = PairSet(
        np.searchsorted(used, dataset.pairs.first),
        np.searchsorted(used, dataset.pairs.second),
        dataset.pairs.same,
        dataset.pairs.fold,
    )
    base = normalize(found[fp32.key].straight)
    before = run_folds(pair_scores(base, pairs), pairs)
    return {
        name: _drift(normalize(found[embedder.key].straight), base, before, pairs)
        for name, embedder in embedders.items()
    }


def _drift(
    unit: NDArray[np.float64], base: NDArray[np.float64], before: FoldOutcome, pairs: PairSet
) -> Drift:
    scores = pair_scores(unit, pairs)
    after = run_folds(scores, pairs)
    kept = retest_folds(scores, pairs, before.thresholds)
    start = 100 * float(before.accuracies.mean())
    accuracy = 100 * float(after.accuracies.mean())
    return Drift(
        accuracy=accuracy,
        change=accuracy - start,
        kept_change=100 * float(kept.accuracies.mean()) - start,
        cosine=float((unit * base).sum(axis=1).mean()),
    )
