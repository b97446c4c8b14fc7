import numpy as np
import pytest

from mfn_compile.errors import InternalCheckError
from mfn_compile.evaluate.evaluator import evaluate
from mfn_compile.progress import SilentProgress
from mfn_compile.results import Evaluation

from .fakes import FakeEmbedder, FakeImages, make_pairs

PEOPLE = 8


def measure(tmp_path, fp32, int8, *, images=None, all_pairs=True):
    images = images or FakeImages(60, PEOPLE)
    return evaluate(
        images,
        make_pairs(48, PEOPLE),
        fp32,
        int8,
        dataset_name="fake",
        all_pairs=all_pairs,
        cache_dir=tmp_path,
        progress=SilentProgress(),
    )


def test_equal_networks_do_not_drift(tmp_path):
    result = measure(tmp_path, FakeEmbedder("a", PEOPLE, 0.5), FakeEmbedder("b", PEOPLE, 0.5))
    assert result.fp32 == result.int8
    assert result.drop == 0
    assert result.paired.flipped == 0
    assert result.paired.mcnemar_p == 1
    assert result.cosine.min == pytest.approx(1)
    assert result.accuracy_at_fp32_threshold == result.fp32.accuracy
    assert result.all_pairs.fp32_tar_at_far == result.all_pairs.int8_tar_at_far


def test_a_noisy_network_loses(tmp_path):
    result = measure(tmp_path, FakeEmbedder("a", PEOPLE, 0.2), FakeEmbedder("b", PEOPLE, 2.0))
    assert result.drop > 5
    assert result.paired.lost > result.paired.gained
    assert result.paired.bootstrap_low < result.drop < result.paired.bootstrap_high
    assert result.cosine.mean < 0.9
    assert result.fp32.auc > result.int8.auc


def test_counts_and_names(tmp_path):
    result = measure(tmp_path, FakeEmbedder("a", PEOPLE), FakeEmbedder("b", PEOPLE, 0.1))
    pairs = make_pairs(48, PEOPLE)
    assert result.pairs == len(pairs)
    assert result.images == len(pairs.images())
    assert result.dataset == "fake"
    assert "5-fold" in result.protocol
    same = np.arange(60) % PEOPLE
    genuine = int((same[:, None] == same).sum() - 60) // 2
    assert result.all_pairs.images == 60
    assert result.all_pairs.genuine == genuine
    assert result.all_pairs.impostor == 60 * 59 // 2 - genuine
    assert Evaluation.model_validate_json(result.model_dump_json()) == result


def test_only_the_pairs_are_flipped(tmp_path):
    fp32 = FakeEmbedder("a", PEOPLE)
    measure(tmp_path, fp32, FakeEmbedder("b", PEOPLE))
    used = len(make_pairs(48, PEOPLE).images())
    assert fp32.images == 2 * used + (60 - used)


def test_all_pairs_needs_identities_and_a_wish(tmp_path):
    nameless = FakeImages(60)
    a, b = FakeEmbedder("a", PEOPLE), FakeEmbedder("b", PEOPLE)
    assert measure(tmp_path, a, b, images=nameless).all_pairs is None
    assert measure(tmp_path, a, b, all_pairs=False).all_pairs is None


def test_a_second_evaluation_reads_the_cache(tmp_path):
    networks = FakeEmbedder("a", PEOPLE), FakeEmbedder("b", PEOPLE, 0.3)
    first = measure(tmp_path, *networks)
    again = FakeEmbedder("a", PEOPLE), FakeEmbedder("b", PEOPLE, 0.3)
    assert measure(tmp_path, *again) == first
    assert [network.calls for network in again] == [0, 0]


def test_unusable_embedding_ends_the_evaluation(tmp_path):
    broken = FakeEmbedder("b", PEOPLE, spoil={5: float("nan")})
    with pytest.raises(InternalCheckError, match="image_5"):
        measure(tmp_path, FakeEmbedder("a", PEOPLE), broken)
