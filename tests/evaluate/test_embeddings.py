import numpy as np
import pytest

from mfn_compile.errors import DeviceError, InternalCheckError
from mfn_compile.evaluate.chunk_cache import ChunkCache
from mfn_compile.evaluate.embeddings import embed_all
from mfn_compile.progress import SilentProgress

from .fakes import FakeEmbedder, FakeImages


def run(images, embedders, folder, *, indices=None, flip=True, chunk=10):
    return embed_all(
        images,
        np.arange(images.count) if indices is None else indices,
        embedders,
        flip=flip,
        cache=ChunkCache(folder),
        progress=SilentProgress(),
        chunk=chunk,
    )


def test_order_and_mirror(tmp_path):
    images = FakeImages(25)
    indices = np.array([20, 3, 7])
    found = run(images, [FakeEmbedder("a", 5, 0.1)], tmp_path, indices=indices)["a"]
    direct = FakeEmbedder("a", 5, 0.1)
    crops = images.crops(indices)
    np.testing.assert_array_equal(found.straight, direct.embed(crops))
    np.testing.assert_array_equal(found.mirrored, direct.embed(crops[:, :, ::-1]))
    np.testing.assert_array_equal(found.flip_sum(), found.straight + found.mirrored)


def test_without_flip_there_is_no_sum(tmp_path):
    found = run(FakeImages(4), [FakeEmbedder("a", 2)], tmp_path, flip=False)["a"]
    assert found.mirrored is None
    with pytest.raises(InternalCheckError):
        found.flip_sum()


def test_each_chunk_is_decoded_once_for_all_networks(tmp_path):
    images = FakeImages(25)
    run(images, [FakeEmbedder("a", 5), FakeEmbedder("b", 5)], tmp_path)
    assert images.decoded == list(range(25))


def test_a_second_run_computes_nothing(tmp_path):
    first = run(FakeImages(25), [FakeEmbedder("a", 5, 0.2)], tmp_path)
    images, again = FakeImages(25), FakeEmbedder("a", 5, 0.2)
    second = run(images, [again], tmp_path)
    assert again.calls == 0
    assert images.decoded == []
    np.testing.assert_array_equal(first["a"].straight, second["a"].straight)
    np.testing.assert_array_equal(first["a"].mirrored, second["a"].mirrored)


def test_a_new_network_leaves_the_known_one_alone(tmp_path):
    run(FakeImages(25), [FakeEmbedder("fp32", 5)], tmp_path)
    fp32, int8 = FakeEmbedder("fp32", 5), FakeEmbedder("int8", 5, 0.1)
    run(FakeImages(25), [fp32, int8], tmp_path)
    assert (fp32.calls, int8.images) == (0, 50)


def test_straight_embeddings_are_shared_with_a_run_without_flip(tmp_path):
    run(FakeImages(25), [FakeEmbedder("a", 5)], tmp_path, flip=True)
    again = FakeEmbedder("a", 5)
    run(FakeImages(25), [again], tmp_path, flip=False)
    assert again.calls == 0


def test_a_killed_run_resumes(tmp_path):
    dying = FakeEmbedder("a", 5, fail_at_call=4)  # chunk 2, mirrored
    with pytest.raises(KeyboardInterrupt):
        run(FakeImages(50), [dying], tmp_path)
    assert dying.images == 30
    resumed = FakeEmbedder("a", 5)
    found = run(FakeImages(50), [resumed], tmp_path)
    assert resumed.images == 100 - 30
    whole = run(FakeImages(50), [FakeEmbedder("a", 5)], tmp_path / "other")
    np.testing.assert_array_equal(found["a"].straight, whole["a"].straight)


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", None])
def test_a_damaged_entry_is_computed_again(tmp_path, damage):
    expected = run(FakeImages(25), [FakeEmbedder("a", 5)], tmp_path)
    victim = sorted(tmp_path.rglob("*.npy"))[0]
    content = bytearray(victim.read_bytes())
    content[200] ^= 1
    victim.write_bytes(bytes(content) if damage is None else damage)
    again = FakeEmbedder("a", 5)
    found = run(FakeImages(25), [again], tmp_path)
    assert again.calls == 1
    np.testing.assert_array_equal(found["a"].straight, expected["a"].straight)


def test_entries_are_plain_npy_files_and_nothing_is_left_over(tmp_path):
    run(FakeImages(10), [FakeEmbedder("a", 5)], tmp_path, flip=False)
    (entry,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert np.load(entry).shape == (10, 16)


def test_other_images_have_other_keys(tmp_path):
    run(FakeImages(10), [FakeEmbedder("a", 5)], tmp_path)
    again = FakeEmbedder("a", 5)
    run(FakeImages(10, digest="changed"), [again], tmp_path)
    assert again.images == 20


@pytest.mark.parametrize(
    ("value", "word"), [(np.nan, "not finite"), (np.inf, "not finite"), (0.0, "zero")]
)
def test_unusable_embedding_names_the_image(tmp_path, value, word):
    spoilt = FakeEmbedder("a", 5, spoil={13: value})
    with pytest.raises(InternalCheckError, match=rf"{word}.*image_13"):
        run(FakeImages(25), [spoilt], tmp_path)
    assert len(list(tmp_path.rglob("*.npy"))) == 2  # the chunk before it, nothing of its own


def test_wrong_number_of_embeddings(tmp_path):
    class Short(FakeEmbedder):
        def embed(self, crops):
            return super().embed(crops)[:-1]

    with pytest.raises(InternalCheckError, match="shape"):
        run(FakeImages(4), [Short("a", 2)], tmp_path)


def test_cache_that_cannot_be_written(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(DeviceError, match="cannot be cached"):
        run(FakeImages(4), [FakeEmbedder("a", 2)], blocked)
