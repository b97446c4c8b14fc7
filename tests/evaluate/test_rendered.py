import numpy as np

from mfn_compile.demo.faces import render
from mfn_compile.evaluate.rendered import open_rendered, renderer_sha256


def test_pairs_and_identities_agree():
    data = open_rendered()
    people = np.array(data.images.identities)
    pairs = data.pairs
    np.testing.assert_array_equal(people[pairs.first] == people[pairs.second], pairs.same)
    assert data.rendered
    assert (len(pairs), pairs.folds) == (6000, 10)
    assert len(set(data.images.names)) == len(data.images.names) == 2400
    assert "not photographs" in data.images.notes[0]


def test_crops_are_those_of_the_renderer():
    images = open_rendered().images
    indices = np.array([40, 3, 700])
    expected = render(images.seeds.identity[indices], images.seeds.shot[indices])
    np.testing.assert_array_equal(images.crops(indices), expected)


def test_digest_follows_seeds_and_source():
    images = open_rendered().images
    assert images.digest == open_rendered().images.digest
    assert len(renderer_sha256()) == 64
    assert len(set(images.content_hashes(np.arange(50)))) == 50
