"""The whole evaluation: INT8 against fp32 on the same crops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mfn_compile.evaluate import all_pairs as every_pair
from mfn_compile.evaluate.chunk_cache import ChunkCache
from mfn_compile.evaluate.embeddings import Embedded, Embedder, embed_all
from mfn_compile.evaluate.imageset import ImageSet, Indices, combine_digests
from mfn_compile.evaluate.pairs import PairSet
from mfn_compile.evaluate.statistics import compare_decisions, cosine_stats
from mfn_compile.evaluate.verification import (
    FoldOutcome,
    normalize,
    pair_scores,
    retest_folds,
    run_folds,
    summarize,
)
from mfn_compile.progress import Progress
from mfn_compile.results import AllPairs, Evaluation, Verification


def evaluate(
    image_set: ImageSet,
    pair_set: PairSet,
    fp32: Embedder,
    int8: Embedder,
    *,
    dataset_name: str,
    all_pairs: bool,
    cache_dir: Path,
    progress: Progress,
    rendered: bool = False,
) -> Evaluation:
    """Measure what quantization cost on a pairs benchmark.

    Args:
        image_set: source of the crops.
        pair_set: pairs over it.
        fp32: the network before quantization.
        int8: the network after it.
        dataset_name: what the report calls the benchmark.
        all_pairs: also compare every image with every other, where identities are known.
        cache_dir: embeddings of finished chunks; a killed run resumes from them.
        progress: where to report to.
        rendered: the images are rendered, not photographs.

    Raises:
        BadInputError: an image cannot be used.
        InternalCheckError: an embedding is zero or not finite.
        DeviceError: the cache cannot be written.
    """
    cache = ChunkCache(cache_dir)
    used = pair_set.images()
    networks = (fp32, int8)
    found = embed_all(
        image_set,
        used,
        networks,
        flip=True,
        cache=cache,
        progress=progress,
        title="Embedding the images of the pairs",
    )
    local = _localized(pair_set, used)
    before, before_folds, before_unit = _verify(found[fp32.key], local)
    after, after_folds, after_unit = _verify(found[int8.key], local)
    kept = retest_folds(pair_scores(after_unit, local), local, before_folds.thresholds)
    everything = None
    if all_pairs and image_set.identities is not None:
        straight = {key: embedded.straight for key, embedded in found.items()}
        everything = _every_pair(image_set, used, straight, networks, cache, progress)
    return Evaluation(
        protocol=_protocol(pair_set),
        dataset=dataset_name,
        dataset_sha256=combine_digests(image_set.digest, pair_set.digest()),
        pairs=len(pair_set),
        images=len(used),
        rendered=rendered,
        fp32=before,
        int8=after,
        drop=before.accuracy - after.accuracy,
        accuracy_at_fp32_threshold=100 * float(kept.accuracies.mean()),
        cosine=cosine_stats(before_unit, after_unit),
        paired=compare_decisions(before_folds.correct, after_folds.correct),
        all_pairs=everything,
    )


def _protocol(pairs: PairSet) -> str:
    return (
        f"{pairs.folds}-fold cross-validation in the manner of LFW View 2: cosine similarity, "
        f"threshold chosen on {pairs.folds - 1} folds, tested on the remaining one"
    )


def _localized(pairs: PairSet, used: Indices) -> PairSet:
    """The same pairs, indexing the rows of the embeddings of `used`."""
    return PairSet(
        np.searchsorted(used, pairs.first),
        np.searchsorted(used, pairs.second),
        pairs.same,
        pairs.fold,
    )


def _verify(
    embedded: Embedded, pairs: PairSet
) -> tuple[Verification, FoldOutcome, NDArray[np.float64]]:
    unit = normalize(embedded.straight)
    scores = pair_scores(unit, pairs)
    flip_scores = pair_scores(normalize(embedded.flip_sum()), pairs)
    folds = run_folds(scores, pairs)
    report = summarize(pairs, scores, flip_scores, folds, run_folds(flip_scores, pairs))
    return report, folds, unit


def _every_pair(
    image_set: ImageSet,
    used: Indices,
    straight: dict[str, NDArray[np.float32]],
    networks: tuple[Embedder, Embedder],
    cache: ChunkCache,
    progress: Progress,
) -> AllPairs | None:
    identities = image_set.identities
    if identities is None:
        return None
    rest = np.setdiff1d(np.arange(len(image_set.names)), used)
    if len(rest):
        more = embed_all(
            image_set,
            rest,
            networks,
            flip=False,
            cache=cache,
            progress=progress,
            title="Embedding all other images",
        )
        straight = {k: np.concatenate([e, more[k].straight]) for k, e in straight.items()}
    shown = [identities[i] for i in np.concatenate([used, rest]).tolist()]
    scored = []
    with progress.task("Comparing all pairs", len(networks)) as task:
        for network in networks:
            unit = normalize(straight[network.key]).astype(np.float32)
            scored.append(every_pair.score_all(unit, shown))
            task.advance()
    before, after = scored
    if before is None or after is None:
        return None
    return AllPairs(
        images=len(shown),
        genuine=len(before.genuine),
        impostor=before.impostors,
        fp32_tar_at_far=before.tar_at_far(),
        int8_tar_at_far=after.tar_at_far(),
        fp32_roc=before.roc(),
        int8_roc=after.roc(),
    )
