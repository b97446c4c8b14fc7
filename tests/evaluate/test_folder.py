import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mfn_compile.errors import BadInputError
from mfn_compile.evaluate import decode
from mfn_compile.evaluate.datasets import open_dataset
from mfn_compile.evaluate.decode import as_crop, decode_rgb
from mfn_compile.evaluate.folder import open_folder, open_images

from .fakes import encode, picture, write_picture


def write_people(root, people=4, shots=3):
    for person in range(people):
        for shot in range(1, shots + 1):
            path = root / f"person_{person}" / f"person_{person}_{shot:04d}.jpg"
            write_picture(path, seed=10 * person + shot)


def csv_list(tmp_path, text):
    path = tmp_path / "pairs.csv"
    path.write_text(text)
    return path


def name(person, shot):
    return f"person_{person}/person_{person}_{shot:04d}.jpg"


GOOD = (
    "first,second,same,fold\n"
    f"{name(0, 1)},{name(0, 2)},1,1\n{name(0, 1)},{name(1, 1)},0,1\n"
    f"{name(2, 1)},{name(2, 2)},true,5\n{name(2, 1)},{name(3, 1)},False,5\n"
)


def test_csv_pairs(tmp_path):
    write_people(tmp_path / "crops")
    data = open_dataset(tmp_path / "crops", pairs=csv_list(tmp_path, GOOD))
    assert data.name == "crops"
    assert data.pairs.same.tolist() == [True, False, True, False]
    assert data.pairs.fold.tolist() == [0, 0, 1, 1]
    assert data.images.identities[0] == "person_0"
    assert data.images.notes == ()
    assert data.images.crops(data.pairs.first).shape == (4, 112, 112, 3)


def test_csv_without_folds_is_cut_into_ten(tmp_path):
    write_people(tmp_path / "crops")
    rows = "".join(f"{name(i % 4, 1)},{name((i + i % 2) % 4, 2)},{1 - i % 2}\n" for i in range(20))
    data = open_folder(tmp_path / "crops", csv_list(tmp_path, "first,second,same\n" + rows))
    assert data.pairs.fold.tolist() == np.repeat(np.arange(10), 2).tolist()


@pytest.mark.parametrize("flat", [False, True])
def test_lfw_style_list(tmp_path, flat):
    root = tmp_path / "crops"
    for person in "AB":
        for shot in (1, 2):
            stem = f"{person}_{shot:04d}.png"
            write_picture(root / (stem if flat else f"{person}/{stem}"), seed=shot)
    listing = tmp_path / "pairs.txt"
    listing.write_text("2 1\nA 1 2\nA 1 B 1\nB 1 2\nA 2 B 2\n")
    data = open_folder(root, listing)
    assert len(data.pairs) == 4
    assert (data.images.identities is None) == flat


def test_lfw_style_name_that_two_files_share(tmp_path):
    for suffix in ("jpg", "png"):
        write_picture(tmp_path / f"A_0001.{suffix}", seed=1)
    write_picture(tmp_path / "A_0002.jpg", seed=2)
    write_picture(tmp_path / "B_0001.jpg", seed=3)
    write_picture(tmp_path / "B_0002.jpg", seed=4)
    listing = tmp_path / "pairs.txt"
    listing.write_text("2 1\nA 1 2\nA 1 B 1\nB 1 2\nA 2 B 2\n")
    with pytest.raises(BadInputError, match="two files"):
        open_folder(tmp_path, listing)


def test_folders_that_are_no_people_are_no_identities(tmp_path):
    write_people(tmp_path / "crops")
    wrong = GOOD.replace(",1,1\n", ",0,1\n")
    data = open_folder(tmp_path / "crops", csv_list(tmp_path, wrong))
    assert data.images.identities is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("first,", "erste,", "line 1.*header"),
        (",1,1\n", ",maybe,1\n", "line 2.*maybe"),
        (",0,1\n", ",0\n", "line 3.*4 fields"),
        (",0,1\n", ",0,x\n", "line 3.*[Ff]old"),
        (name(2, 2), name(2, 1), "line 4.*itself"),
        (name(3, 1), "../../secret.jpg", r"absent image.*secret\.jpg \(line 5\)"),
        (",0,1\n", ',0,"1\n', "no CSV"),
        (",5\n", ",1\n", "two folds"),
    ],
)
def test_malformed_csv(tmp_path, old, new, message):
    write_people(tmp_path / "crops")
    with pytest.raises(BadInputError, match=message):
        open_folder(tmp_path / "crops", csv_list(tmp_path, GOOD.replace(old, new)))


def test_many_absent_images_are_counted(tmp_path):
    write_people(tmp_path / "crops", people=1)
    with pytest.raises(BadInputError, match="4 absent images"):
        open_folder(tmp_path / "crops", csv_list(tmp_path, GOOD))


def test_empty_csv(tmp_path):
    write_people(tmp_path / "crops")
    with pytest.raises(BadInputError, match="line 1"):
        open_folder(tmp_path / "crops", csv_list(tmp_path, ""))
    with pytest.raises(BadInputError, match="empty"):
        open_folder(tmp_path / "crops", csv_list(tmp_path, "first,second,same,fold\n"))


def test_empty_and_absent_folder(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "._a.jpg").write_text("what a file manager left behind")
    with pytest.raises(BadInputError, match="no images"):
        open_images(tmp_path)
    with pytest.raises(BadInputError, match="Not a folder"):
        open_images(tmp_path / "absent")


def test_too_many_images(tmp_path, monkeypatch):
    monkeypatch.setattr("mfn_compile.evaluate.folder.MAX_IMAGES", 2)
    write_people(tmp_path)
    with pytest.raises(BadInputError, match="over 2 images"):
        open_images(tmp_path)


def test_digest_and_hashes(tmp_path):
    write_people(tmp_path)
    images = open_images(tmp_path)
    before = images.digest
    hashes = images.content_hashes(np.arange(12))
    assert len(set(hashes)) == 12
    write_picture(tmp_path / images.names[3], seed=99)
    after = open_images(tmp_path)
    assert after.digest != before
    assert after.content_hashes(np.array([3, 4]))[1] == hashes[4]


def test_other_sizes_are_noted(tmp_path):
    write_picture(tmp_path / "a.jpg", 1, 160, 160)
    (note,) = open_images(tmp_path).notes
    assert "160x160" in note


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP"])
def test_formats(kind):
    assert decode_rgb(encode(picture(1), kind), "x").size == (112, 112)


def test_greyscale_becomes_three_equal_channels():
    grey = picture(1)[..., 0]
    crop = as_crop(decode_rgb(encode(grey, "PNG"), "x"), "x")
    np.testing.assert_array_equal(crop, np.repeat(grey[..., None], 3, 2))


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK", "1", "LA"])
def test_other_colour_modes(mode):
    image = Image.fromarray(picture(2)).convert(mode)
    kind = "JPEG" if mode == "CMYK" else "PNG"
    import io

    buffer = io.BytesIO()
    image.save(buffer, kind)
    assert decode_rgb(buffer.getvalue(), "x").mode == "RGB"


@pytest.mark.parametrize("size", [(1, 1), (31, 200)])
def test_tiny_image(size):
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    with pytest.raises(BadInputError, match=f"{size[0]}x{size[1]} pixels is too small"):
        decode_rgb(encode(pixels, "PNG"), "x")


def test_decompression_bomb():
    bomb = encode(np.zeros((6_000, 6_000), np.uint8), "PNG")
    assert len(bomb) < 100_000
    with pytest.raises(BadInputError, match="6000x6000 pixels is too large"):
        decode_rgb(bomb, "x")


@pytest.mark.parametrize("limit", [10_000, 5_000])
def test_pillow_s_own_limit(monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)  # it warns above, and raises at twice
    with pytest.raises(BadInputError, match="Image is too large"):
        decode_rgb(encode(picture(1)), "x")


@pytest.mark.parametrize("content", [b"", b"GIF89a not really", b"\xff\xd8\xff\xe0 junk"])
def test_no_image(content):
    with pytest.raises(BadInputError, match="cannot be decoded"):
        decode_rgb(content, "x")


def test_corrupt_jpeg_in_a_folder_is_named(tmp_path):
    write_people(tmp_path)
    victim = tmp_path / name(1, 2)
    victim.write_bytes(victim.read_bytes()[:400])
    images = open_images(tmp_path)
    with pytest.raises(BadInputError, match="person_1_0002"):
        images.crops(np.arange(12))


def test_too_large_file(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x" * 100)
    with pytest.raises(BadInputError, match="100 bytes, limit 99"):
        decode.read_bytes(path, 99)


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=150)
@given(
    st.sampled_from(["JPEG", "PNG", "BMP", "WEBP"]),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=12),
    st.floats(0, 1),
)
def test_damaged_files_give_an_image_or_an_error(kind, changes, end):
    content = bytearray(encode(picture(4), kind))
    for place, value in changes:
        content[int(place * (len(content) - 1))] = value
    try:
        image = decode_rgb(bytes(content[: max(1, int(end * 2 * len(content)))]), "x")
    except BadInputError:
        return
    assert image.mode == "RGB"


@pytest.mark.parametrize("size", [(112, 112), (32, 32), (250, 250), (160, 150)])
def test_square_crops_fill_the_frame(size):
    white = Image.new("RGB", size, (255, 255, 255))
    assert as_crop(white, "x").min() == 255


@pytest.mark.parametrize("size", [(96, 112), (192, 224)])
def test_narrow_crops_become_the_centre(size):
    crop = as_crop(Image.new("RGB", size, (255, 255, 255)), "x")
    assert crop[:, 8:104].min() == 255
    assert crop[:, :8].max() == 0
    assert crop[:, 104:].max() == 0


@pytest.mark.parametrize("size", [(112, 96), (112, 224), (60, 112)])
def test_other_proportions_are_refused(size):
    with pytest.raises(BadInputError, match="no aligned crop"):
        as_crop(Image.new("RGB", size), "x")
