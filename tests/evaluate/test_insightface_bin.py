import contextlib
import os
import pickle
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfn_compile.errors import BadInputError
from mfn_compile.evaluate import insightface_bin
from mfn_compile.evaluate.datasets import open_dataset
from mfn_compile.evaluate.insightface_bin import open_bin
from mfn_compile.evaluate.restricted_pickle import UnsafePickleError, loads

from .fakes import encode, picture

PAIRS = 23


def content(pairs=PAIRS):
    images = [encode(picture(i)) for i in range(2 * pairs)]
    return images, [i % 2 == 0 for i in range(pairs)]


def write(tmp_path, data, name="toy.bin"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol(tmp_path, protocol):
    images, same = content()
    data = open_dataset(write(tmp_path, pickle.dumps((images, same), protocol)))
    assert data.name == "toy"
    assert data.pairs.same.tolist() == same
    assert data.pairs.first.tolist() == list(range(0, 46, 2))
    assert data.pairs.second.tolist() == list(range(1, 46, 2))
    assert np.bincount(data.pairs.fold).tolist() == [3, 3, 3, 2, 2, 2, 2, 2, 2, 2]
    assert data.images.names[17] == "toy.bin#17"
    crops = data.images.crops(np.array([5, 0]))
    assert crops.shape == (2, 112, 112, 3)
    assert np.abs(crops[1].astype(int) - picture(0)).mean() < 8


def python2_pickle(images, same):
    """What Python 2's cPickle writes in protocol 2: str objects as BINSTRING, bools as opcodes."""
    out = b"\x80\x02]q\x01("
    out += b"".join(b"T" + struct.pack("<i", len(image)) + image for image in images)
    out += b"e]q\x02(" + b"".join(b"\x88" if s else b"\x89" for s in same) + b"e\x86q\x03."
    return out


def test_python_2(tmp_path):
    images, same = content()
    data = open_bin(write(tmp_path, python2_pickle(images, same)))
    assert data.images.encoded == tuple(images)
    assert data.pairs.same.tolist() == same


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("module", [b"numpy._core", b"numpy.core"])
def test_numpy_content(tmp_path, protocol, module):
    images, same = content(10)
    arrays = [np.frombuffer(image, np.uint8).copy() for image in images]
    if protocol == 5:  # NumPy then writes a form of its own that no benchmark set has
        data = pickle.dumps((images, [np.bool_(s) for s in same]), 4)
    else:
        data = pickle.dumps((arrays, np.array(same)), protocol)
    if protocol == 2:
        data = data.replace(b"numpy._core", module)
    found = open_bin(write(tmp_path, data))
    assert found.images.encoded == tuple(images)
    assert found.pairs.same.tolist() == same


def test_digest_and_hashes(tmp_path):
    images, same = content(10)
    one = open_bin(write(tmp_path, pickle.dumps((images, same))))
    renamed = open_bin(write(tmp_path, pickle.dumps((images, same), 2), "other.bin"))
    assert one.images.digest == renamed.images.digest
    assert len(set(one.images.content_hashes(np.arange(20)))) == 20
    images[3] = images[4]
    changed = open_bin(write(tmp_path, pickle.dumps((images, same))))
    assert changed.images.digest != one.images.digest


class Runs:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def hostile(target):
    command = f"mkdir {target}".encode()
    yield "reduce", pickle.dumps(([Runs(target)], [True]))
    for protocol in range(6):
        yield f"protocol {protocol}", pickle.dumps(Runs(target), protocol)
    yield "system", b"cposix\nsystem\n(S'" + command + b"'\ntR."
    yield "eval", b'c__builtin__\neval\n(S\'__import__("os").mkdir("' + command + b"\")'\ntR."
    yield "dotted", b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93."
    yield "inst", b"(S'" + command + b"'\niposix\nsystem\n."
    yield "obj", b"(cposix\nsystem\nS'" + command + b"'\no."
    yield "newobj", b"\x80\x02cnumpy\nndarray\n(K\x05t\x81."
    yield "call of ndarray", b"cnumpy\nndarray\n(I1000000000000\ntR."
    yield "persistent", b"Pabc\n."
    yield "extension", b"\x80\x02\x82\x01."
    yield "dict", b"\x80\x02}."
    yield "set", b"\x80\x04\x8f."
    yield "memo bomb", b"\x80\x02K\x01r\xff\xff\xff\x7f."
    yield "huge length", b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"."
    yield "huge frame", b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"."
    yield "object array", pickle.dumps(([np.array([1, "a"], object)], [True]), 4)
    yield "matrix", pickle.dumps(([np.zeros((2, 2), np.uint8)], [True]), 4)
    yield "float array", pickle.dumps(([np.zeros(2)], [True]), 4)
    yield "big endian", pickle.dumps(([np.zeros(2, ">i4")], [True]), 4)
    yield "long number", b"I" + b"9" * 10_000 + b"\n."
    yield "empty", b""
    yield "text", b"hello"
    yield "no stop", b"\x80\x02]"
    yield "empty stack", b"\x80\x02R."


HOSTILE = [label for label, _ in hostile("x")]


@pytest.mark.parametrize("label", HOSTILE)
def test_hostile_pickles_are_refused_and_do_not_run(tmp_path, label):
    target = tmp_path / "ran"
    data = dict(hostile(str(target)))[label]
    with pytest.raises(BadInputError, match="refused"):
        open_bin(write(tmp_path, data))
    assert not target.exists()


def test_the_hostile_pickle_would_have_run(tmp_path):
    target = tmp_path / "ran"
    pickle.loads(dict(hostile(str(target)))["reduce"])
    assert target.exists()


@settings(max_examples=300)
@given(st.binary(max_size=60), st.integers(0, 400), st.integers(0, 255))
def test_arbitrary_bytes_end_in_data_or_an_error(noise, place, value):
    good = bytearray(pickle.dumps(([b"a" * 40, b"b" * 40], [True, np.bool_(False)]), 4))
    good[place % len(good)] = value
    for data in (noise, bytes(good), bytes(good[: place % len(good)]) + noise):
        with contextlib.suppress(UnsafePickleError):
            loads(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([1, 2, 3], "two lists"),
        ((5, [True]), "two lists"),
        (([b"a"] * 3, [True]), "3 images do not make 1 pairs"),
        (([5, b"b"], [True]), "Image 0 is no encoded image"),
        (([b"a", b"b"], [7]), "Truth 0"),
        (([b"a", b"b"], [b"x"]), "Truth 0"),
        (([b"a"] * 18, [True] * 9), "9 pairs do not fill 10 folds"),
        (([b"a"] * 20, [True] * 10), "both needed"),
    ],
)
def test_malformed_sets(tmp_path, data, message):
    with pytest.raises(BadInputError, match=message):
        open_bin(write(tmp_path, pickle.dumps(data)))


def test_too_large_set(tmp_path, monkeypatch):
    monkeypatch.setattr(insightface_bin, "MAX_BIN_BYTES", 10)
    with pytest.raises(BadInputError, match="limit 10"):
        open_bin(write(tmp_path, pickle.dumps(content())))


def test_undecodable_image_is_named_when_it_is_needed(tmp_path):
    images, same = content(10)
    images[7] = b"no image"
    data = open_bin(write(tmp_path, pickle.dumps((images, same))))
    assert len(data.images.crops(np.arange(7))) == 7
    with pytest.raises(BadInputError, match=r"toy\.bin#7"):
        data.images.crops(np.arange(20))
