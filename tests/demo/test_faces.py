from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from mfn_compile.demo import camera, geometry
from mfn_compile.demo.faces import render, render_one
from mfn_compile.demo.identity import Identity, groomed, sample_identity
from mfn_compile.demo.shot import Shot, sample_shot

GOLDEN = Path(__file__).parent / "golden" / "contact_sheet.png"
Images = npt.NDArray[np.uint8]


def contact_sheet() -> Images:
    """Four pictures of each of four people at half size, uint8 [224, 224, 3]."""
    images = render(np.repeat(np.arange(4), 4), np.tile(np.arange(4), 4))
    half = images.reshape(16, 56, 2, 56, 2, 3).astype(np.float64).mean(axis=(2, 4))
    sheet = half.reshape(4, 4, 56, 56, 3).transpose(0, 2, 1, 3, 4).reshape(224, 224, 3)
    return np.rint(sheet).astype(np.uint8)


def plain_shot(identity_seed: int, shot_seed: int = 0) -> Shot:
    """A frontal, evenly lit, sharp picture without anything in front of the face."""
    shot = sample_shot(identity_seed, shot_seed)
    pose, mood = shot.pose, shot.expression
    return replace(
        shot,
        pose=replace(pose, yaw=0.0, pitch=0.0, roll=0.0, zoom=0.0, shift_x=0.0, shift_y=0.0),
        expression=replace(mood, open=0.0, smile=0.0, blink=0.0, brow=0.0, gaze_x=0.0, gaze_y=0.0),
        light=replace(
            shot.light, x=0.0, y=0.0, ambient=0.7, gain=1.0, gamma=0.0, warm=0.0, green=0.0
        ),
        occlusion=replace(shot.occlusion, glasses_draw=1.0, hat_draw=1.0, cover_draw=1.0),
        camera=replace(shot.camera, blur=0.0, noise=0.0),
    )


def plain_picture(who: Identity, identity_seed: int) -> npt.NDArray[np.float64]:
    return render_one(who, plain_shot(identity_seed)).astype(np.float64)


def test_shape_and_type() -> None:
    images = render([0, 1], [0, 0])
    assert images.shape == (2, 112, 112, 3)
    assert images.dtype == np.uint8


def test_no_seeds_give_no_images() -> None:
    empty = np.zeros(0, dtype=np.int64)
    assert render(empty, empty).shape == (0, 112, 112, 3)


def test_rendering_is_deterministic() -> None:
    assert np.array_equal(render([5, 6], [1, 2]), render([5, 6], [1, 2]))


def test_global_random_state_is_neither_used_nor_changed() -> None:
    np.random.seed(1)
    first = render([5], [1])
    after = np.random.random()
    np.random.seed(1)
    assert np.random.random() == after
    assert np.array_equal(first, render([5], [1]))


def test_an_image_does_not_depend_on_its_batch() -> None:
    who, shots = np.array([3, 9, 3, 400_001]), np.array([0, 2, 7, 1])
    together = render(who, shots)
    for row in range(4):
        assert np.array_equal(render(who[row : row + 1], shots[row : row + 1])[0], together[row])
    assert np.array_equal(render(who[::-1], shots[::-1])[::-1], together)


@pytest.mark.parametrize(
    ("who", "shots"), [([1, 2], [1]), ([[1]], [[1]]), ([-1], [0]), ([0], [-1])]
)
def test_bad_seeds_are_refused(who: list[int], shots: list[int]) -> None:
    with pytest.raises(ValueError, match="seeds must"):
        render(who, shots)


def test_pictures_use_the_value_range_without_burning_out() -> None:
    images = render(np.arange(40), np.zeros(40, dtype=np.int64))
    assert (images == 255).mean() < 0.15
    assert (images == 0).mean() < 0.10
    assert (images.reshape(40, -1).std(axis=1) > 10).all()


def test_people_differ_more_than_pictures_of_one_person() -> None:
    # Without pose and light; with them, pixels of one person differ as much as two persons.
    people = range(30)
    images = np.stack(
        [
            render_one(groomed(sample_identity(seed), shot.grooming), shot)
            for seed in people
            for shot in (plain_shot(seed, 1), plain_shot(seed, 2))
        ]
    )
    # The inner face on a coarse grid.
    face = images[:, 32:108, 24:88].astype(np.float64)
    coarse = face.reshape(60, 19, 4, 16, 4, 3).mean(axis=(2, 4)).reshape(60, -1)
    distance = np.abs(coarse[:, None] - coarse[None]).mean(axis=2)
    who = np.repeat(people, 2)
    same = who[:, None] == who[None, :]
    other_shot = same & ~np.eye(60, dtype=bool)
    assert distance[~same].mean() > 2.0 * distance[other_shot].mean()


def test_shots_of_one_person_differ_strongly() -> None:
    images = render([7] * 6, np.arange(6)).astype(np.float64)
    for row in range(1, 6):
        assert np.abs(images[row] - images[0]).mean() > 8


@pytest.mark.parametrize("seed", range(6))
def test_eyes_and_mouth_lie_where_the_crop_template_expects_them(seed: int) -> None:
    # Change the colour of one feature only; the pixels that react show where it is.
    who, shot = sample_identity(seed), plain_shot(seed)
    base = plain_picture(who, seed)
    eyes = replace(who.eyes, iris_value=who.eyes.iris_value + 0.8)
    change = np.abs(plain_picture(replace(who, eyes=eyes), seed) - base).sum(axis=2)
    landmarks = geometry.project(geometry.landmarks(who, shot), who, shot)
    expected = _to_pixels(landmarks, geometry.alignment(who, shot))
    for side, columns in ((0, slice(0, 56)), (1, slice(56, 112))):
        x, y = _centroid(change[:, columns], columns.start)
        assert abs(x - expected[side, 0]) < 1.5
        assert abs(y - expected[side, 1]) < 2.5
    mouth = replace(who.mouth, redness=who.mouth.redness - 0.4)
    change = np.abs(plain_picture(replace(who, mouth=mouth), seed) - base).sum(axis=2)
    x, y = _centroid(change, 0)
    assert abs(x - expected[3:, 0].mean()) < 1.5
    assert abs(y - expected[3:, 1].mean()) < 4.0


def _to_pixels(
    points: npt.NDArray[np.float64], align: geometry.Similarity
) -> npt.NDArray[np.float64]:
    x, y = points[:, 0], points[:, 1]
    return np.stack(
        [align.a * x - align.b * y + align.tx, align.b * x + align.a * y + align.ty], axis=1
    )


def _centroid(weight: npt.NDArray[np.float64], left: int) -> tuple[float, float]:
    y, x = np.indices(weight.shape)
    total = weight.sum()
    assert total > 0
    return float((weight * x).sum() / total) + left, float((weight * y).sum() / total)


def test_landmarks_are_aligned_to_the_template_on_average() -> None:
    placed = []
    for seed in range(200):
        shot = sample_shot(seed, 3)
        who = groomed(sample_identity(seed), shot.grooming)
        points = geometry.project(geometry.landmarks(who, shot), who, shot)
        placed.append(_to_pixels(points, geometry.alignment(who, shot)))
    offset = np.stack(placed) - geometry.TEMPLATE
    assert np.abs(offset.mean(axis=0)).max() < 2.5
    assert offset.std(axis=0).max() < 6.0


@pytest.mark.parametrize("seed", range(5))
def test_face_coordinates_invert_the_projection(seed: int) -> None:
    who, shot = sample_identity(seed), sample_shot(seed, 1)
    grid = geometry.face_grid(who, shot)
    rows, columns = np.mgrid[30:100:10, 36:80:8]
    points = np.stack([grid.x[rows, columns], grid.y[rows, columns]], axis=-1).reshape(-1, 2)
    seen = _to_pixels(geometry.project(points.astype(np.float64), who, shot), grid.align)
    expected = np.stack([columns.ravel(), rows.ravel()], axis=1)
    # Three fixed point steps leave a small error around the nose of a turned head.
    assert np.abs(seen - expected).max() < 4.0
    assert np.abs(seen - expected).mean() < 0.6


def test_similarity_fit_recovers_a_known_transform() -> None:
    true = geometry.Similarity(a=30.0, b=-4.0, tx=55.0, ty=50.0)
    fitted = geometry.fit_similarity(geometry.TEMPLATE, _to_pixels(geometry.TEMPLATE, true))
    assert fitted.a == pytest.approx(true.a)
    assert fitted.b == pytest.approx(true.b)
    assert fitted.tx == pytest.approx(true.tx)
    assert fitted.ty == pytest.approx(true.ty)


def test_occluders_change_the_picture_where_they_are() -> None:
    who, shot = sample_identity(11), plain_shot(11)
    bare = render_one(who, shot).astype(int)
    for field, rows in (("glasses_draw", slice(38, 66)), ("hat_draw", slice(0, 30))):
        worn = replace(shot, occlusion=replace(shot.occlusion, **{field: 0.0}))
        change = np.abs(render_one(who, worn).astype(int) - bare).sum(axis=2)
        assert change.sum() > 0
        assert change[rows].sum() > 0.9 * change.sum()


def test_grooming_leaves_everything_but_hair_alone() -> None:
    who, shot = sample_identity(2), sample_shot(2, 2)
    changed = groomed(who, shot.grooming)
    assert changed.hair != who.hair
    assert replace(changed, hair=who.hair) == who


def test_occlusion_rates_are_observed() -> None:
    draws = [sample_shot(seed, 0).occlusion for seed in range(1500)]
    glasses = np.mean([draw.glasses_draw < camera.GLASSES_RATE for draw in draws])
    assert abs(glasses - camera.GLASSES_RATE) < 0.04


def test_pictures_agree_with_the_committed_contact_sheet() -> None:
    with Image.open(GOLDEN) as stored:
        golden = np.asarray(stored.convert("RGB"), dtype=np.float64)
    assert np.abs(contact_sheet().astype(np.float64) - golden).mean() < 1.0
