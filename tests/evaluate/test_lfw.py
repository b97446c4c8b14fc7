import numpy as np
import pytest

from mfn_compile.errors import BadInputError, UsageError
from mfn_compile.evaluate.datasets import open_dataset
from mfn_compile.evaluate.landmarks import packaged_table, read_landmarks
from mfn_compile.evaluate.lfw import open_lfw
from mfn_compile.evaluate.pairs_file import read_lfw_pairs

from .fakes import encode, picture, write_lfw


def test_home_and_inner_folder_are_the_same(tmp_path):
    table = write_lfw(tmp_path)
    home, inner = open_lfw(tmp_path, table), open_lfw(tmp_path / "lfw_funneled", table)
    assert home.images.names == inner.images.names
    assert home.images.digest == inner.images.digest
    assert home.pairs.digest() == inner.pairs.digest()
    assert len(home.images.names) == 18
    assert home.images.identities[:3] == ("P_0", "P_0", "P_0")
    assert home.images.split("calib").tolist() == [2, 5, 8, 11, 14, 17]


def test_pairs_follow_the_list(tmp_path):
    data = open_lfw(tmp_path, write_lfw(tmp_path))
    people = np.array(data.images.identities)
    np.testing.assert_array_equal(
        people[data.pairs.first] == people[data.pairs.second], data.pairs.same
    )
    assert data.pairs.fold.tolist() == [0] * 6 + [1] * 6
    assert data.pairs.same.tolist() == ([True] * 3 + [False] * 3) * 2


def test_crops_in_any_order(tmp_path):
    images = open_lfw(tmp_path, write_lfw(tmp_path)).images
    crops = images.crops(np.array([4, 1, 4]))
    assert crops.shape == (3, 112, 112, 3)
    assert crops.dtype == np.uint8
    np.testing.assert_array_equal(crops[0], crops[2])
    assert np.any(crops[0] != crops[1])


def test_digest_depends_on_pixels_and_landmarks(tmp_path):
    table = write_lfw(tmp_path)
    before = open_lfw(tmp_path, table).images.digest
    text = table.read_text()
    table.write_text(text.replace("91.0,", "91.5,", 1))
    moved = open_lfw(tmp_path, table).images.digest
    table.write_text(text)
    victim = next((tmp_path / "lfw_funneled").rglob("*.jpg"))
    victim.write_bytes(victim.read_bytes() + b"\0")
    assert len({before, moved, open_lfw(tmp_path, table).images.digest}) == 3


def test_content_hash_is_that_of_the_file(tmp_path):
    images = open_lfw(tmp_path, write_lfw(tmp_path)).images
    first, again = images.content_hashes(np.array([0, 1])), images.content_hashes(np.array([1]))
    assert first[1] == again[0]
    assert first[0] != first[1]


def test_colour_images_are_noted(tmp_path):
    table = write_lfw(tmp_path)
    assert open_lfw(tmp_path, table).images.notes == ()
    for path in (tmp_path / "lfw_funneled").rglob("*.jpg"):
        path.write_bytes(encode(picture(3, 250, 250)))
    (note,) = open_lfw(tmp_path, table).images.notes
    assert "in colour" in note


def test_absent_image_is_named(tmp_path):
    table = write_lfw(tmp_path, drop="P_1_0002")
    with pytest.raises(BadInputError, match=r"1 absent image.*P_1_0002 \(line 3\)"):
        open_lfw(tmp_path, table)


def test_corrupt_image_is_named(tmp_path):
    data = open_lfw(tmp_path, write_lfw(tmp_path))
    path = tmp_path / "lfw_funneled" / "P_2" / "P_2_0001.jpg"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(BadInputError, match=r"P_2_0001\.jpg"):
        data.images.crops(np.arange(18))


def test_not_an_lfw_home(tmp_path):
    write_lfw(tmp_path / "lfw_home")
    with pytest.raises(BadInputError, match=r"Give .*lfw_home"):
        open_lfw(tmp_path)
    assert len(open_dataset(tmp_path, landmarks=tmp_path / "lfw_home/landmarks.csv").pairs) == 12
    with pytest.raises(BadInputError, match="No lfw_funneled"):
        open_lfw(tmp_path / "absent")


def test_missing_pairs_list(tmp_path):
    table = write_lfw(tmp_path)
    (tmp_path / "pairs.txt").unlink()
    with pytest.raises(BadInputError, match=r"pairs\.txt"):
        open_lfw(tmp_path, table)


def test_empty_image_folder(tmp_path):
    (tmp_path / "lfw_funneled").mkdir()
    (tmp_path / "pairs.txt").write_text("2 1\n")
    with pytest.raises(BadInputError, match="no images"):
        open_lfw(tmp_path)


GOOD = ["2 1", "A 1 2", "A 1 B 1", "C 1 2", "B 1 C 2"]


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (0, "300", "line 1.*two numbers"),
        (0, "ten 300", "line 1"),
        (0, "1 2", "At least 2 folds"),
        (0, "2 2", "5 lines instead of 9"),
        (0, "99999999999999999999 1", "line 1"),
        (1, "A 1", r"line 2.*Expected name n1 n2"),
        (1, "A 1 B 2", r"line 2.*Expected name n1 n2"),
        (2, "A 1 2", r"line 3.*mismatched"),
        (1, "A 1 x", "'x' is no image number"),
        (1, "A 1 -2", "no image number"),
        (1, "A 1 1", "A_0001 is compared to itself"),
    ],
)
def test_malformed_pairs(tmp_path, line, text, message):
    path = tmp_path / "pairs.txt"
    path.write_text("\n".join(GOOD))
    assert [p.same for p in read_lfw_pairs(path)] == [True, False, True, False]
    path.write_text("\n".join([*GOOD[:line], text, *GOOD[line + 1 :]]))
    with pytest.raises(BadInputError, match=message):
        read_lfw_pairs(path)


def test_pairs_that_are_no_text(tmp_path):
    path = tmp_path / "pairs.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInputError, match="UTF-8"):
        read_lfw_pairs(path)
    with pytest.raises(BadInputError, match="cannot be read"):
        read_lfw_pairs(tmp_path / "absent.txt")
    path.write_text("")
    with pytest.raises(BadInputError, match="line 1"):
        read_lfw_pairs(path)


ROW = "A_0001," + ",".join(["1"] * 10)
HEADER = "image," + ",".join(f"x{i},y{i}" for i in range(5))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,x0\nA,1\n", "lacks columns.*y0"),
        ("", "lacks columns"),
        (f"{HEADER}\n{ROW[:-1]}x\n", "line 2"),
        (f"{HEADER}\n{ROW[:-2]}\n", "line 2"),
        (f"{HEADER}\n{ROW[:-1]}nan\n", "not finite"),
        (f"{HEADER}\n{ROW}\n{ROW}\n", "twice.*A_0001"),
        (f'{HEADER}\n"A', "no CSV"),
    ],
)
def test_malformed_landmarks(tmp_path, text, message):
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(BadInputError, match=message):
        read_landmarks(path)


def test_packaged_landmarks():
    table = read_landmarks(packaged_table())
    assert table.points.shape == (13_233, 5, 2)
    counts = {word: table.splits.count(word) for word in set(table.splits)}
    assert counts == {"pairs": 7701, "calib": 300, "rest": 5232}
    assert table.points.min() > 0
    assert table.points.max() < 250


def test_options_that_do_not_belong(tmp_path):
    write_lfw(tmp_path)
    file = tmp_path / "set.bin"
    file.write_bytes(b"")
    with pytest.raises(UsageError):
        open_dataset(file, pairs=tmp_path / "pairs.txt")
    with pytest.raises(UsageError):
        open_dataset(tmp_path, pairs=tmp_path / "pairs.txt", landmarks=tmp_path / "landmarks.csv")
    with pytest.raises(BadInputError, match="No such file"):
        open_dataset(tmp_path / "absent")
    (tmp_path / "plain").mkdir()
    with pytest.raises(BadInputError, match="pairs list"):
        open_dataset(tmp_path / "plain")
