import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mfn_compile.errors import BadInputError
from mfn_compile.evaluate.alignment import (
    ARCFACE_TEMPLATE,
    fit_similarity,
    invert_similarity,
    warp,
)


def similarity(scale: float, angle: float, dx: float, dy: float) -> np.ndarray:
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, dx], [s, c, dy]])


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


TRANSFORMS = st.builds(
    similarity,
    st.floats(0.05, 20),
    st.floats(-np.pi, np.pi),
    st.floats(-500, 500),
    st.floats(-500, 500),
)


@given(TRANSFORMS)
def test_recovers_a_known_similarity(matrix):
    source = apply(invert_similarity(matrix[None])[0], ARCFACE_TEMPLATE)
    found = fit_similarity(source[None])[0]
    np.testing.assert_allclose(found, matrix, atol=1e-6)


@given(TRANSFORMS, st.integers(0, 2**32 - 1))
def test_no_neighbouring_similarity_fits_better(matrix, seed):
    rng = np.random.default_rng(seed)
    source = apply(matrix, ARCFACE_TEMPLATE) + rng.normal(0, 2, (5, 2))
    found = fit_similarity(source[None])[0]
    error = np.square(apply(found, source) - ARCFACE_TEMPLATE).sum()
    for _ in range(8):
        other = found.copy()
        da, db = rng.normal(0, 1e-3, 2)
        other += [[da, -db, rng.normal(0, 0.1)], [db, da, rng.normal(0, 0.1)]]
        assert np.square(apply(other, source) - ARCFACE_TEMPLATE).sum() >= error - 1e-9


def test_vectorized_rows_are_independent():
    rng = np.random.default_rng(0)
    many = ARCFACE_TEMPLATE * 2 + rng.normal(0, 3, (7, 5, 2))
    together = fit_similarity(many)
    for row, points in zip(together, many, strict=True):
        np.testing.assert_array_equal(row, fit_similarity(points[None])[0])


@pytest.mark.parametrize("bad", [np.full((5, 2), 3.0), np.full((5, 2), np.nan)])
def test_degenerate_landmarks_are_refused(bad):
    with pytest.raises(BadInputError, match="row 1 of 2"):
        fit_similarity(np.stack([ARCFACE_TEMPLATE, bad]))


def test_identity_copies_pixels():
    pixels = np.random.default_rng(1).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    identity = np.array([[1.0, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(warp(Image.fromarray(pixels), identity), pixels)


@given(st.integers(-20, 20), st.integers(-20, 20), st.sampled_from([0.5, 1.0]))
def test_coordinates_are_pixel_centres(dx, dy, scale):
    """A ramp image is linear, so bilinear sampling must return the ramp at the mapped index."""
    x, y = np.meshgrid(np.arange(180), np.arange(170))
    ramp = np.stack([x, y, np.zeros_like(x)], -1).astype(np.uint8)
    matrix = np.array([[scale, 0, 20.0 + dx], [0, scale, 20.0 + dy]])
    crop = warp(Image.fromarray(ramp), matrix).astype(float)
    index = np.arange(112)
    np.testing.assert_allclose(crop[50, :, 0], scale * index + 20 + dx, atol=0.51)
    np.testing.assert_allclose(crop[:, 50, 1], scale * index + 20 + dy, atol=0.51)


def test_landmarks_land_on_the_template():
    """White dots at the landmarks come out with their centre of mass at the template."""
    matrix = similarity(0.7, 0.3, 10.0, -8.0)
    source = apply(invert_similarity(matrix[None])[0], ARCFACE_TEMPLATE)
    y, x = np.mgrid[0:250, 0:250]
    to_image = invert_similarity(fit_similarity(source[None]))[0]
    for point, target in zip(source, ARCFACE_TEMPLATE, strict=True):
        dot = 255 * np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / 18)
        image = Image.fromarray(np.repeat(dot[..., None], 3, 2).astype(np.uint8))
        crop = warp(image, to_image)[..., 0].astype(float)
        rows, columns = np.mgrid[0:112, 0:112]
        mass = crop.sum()
        centre = np.array([(crop * columns).sum(), (crop * rows).sum()]) / mass
        np.testing.assert_allclose(centre, target, atol=0.05)


def test_outside_of_the_image_is_black():
    white = Image.fromarray(np.full((50, 50, 3), 255, np.uint8))
    crop = warp(white, np.array([[1.0, 0, 0], [0, 1, 0]]))
    assert crop[:50, :50].min() == 255
    assert crop[50:].max() == 0
    assert crop[:, 50:].max() == 0


@given(st.integers(0, 2**32 - 1))
def test_values_are_rounded_not_cut_off(seed):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (140, 140, 3), dtype=np.uint8)
    matrix = similarity(rng.uniform(0.6, 1.0), rng.uniform(-0.1, 0.1), 14.0, 14.0)
    y, x = np.mgrid[0:112, 0:112]
    u, v = (matrix[:, :2] @ np.stack([x.ravel(), y.ravel()]) + matrix[:, 2:]).reshape(2, 112, 112)
    left, top = np.floor(u).astype(int), np.floor(v).astype(int)
    fx, fy = (u - left)[..., None], (v - top)[..., None]
    inside = (left >= 0) & (top >= 0) & (left < 139) & (top < 139)
    left, top = np.clip(left, 0, 138), np.clip(top, 0, 138)
    upper = pixels[top, left] * (1 - fx) + pixels[top, left + 1] * fx
    lower = pixels[top + 1, left] * (1 - fx) + pixels[top + 1, left + 1] * fx
    exact = upper * (1 - fy) + lower * fy
    error = (warp(Image.fromarray(pixels), matrix) - exact)[inside]
    assert inside.mean() > 0.5
    assert np.abs(error).max() < 0.51
    assert abs(error.mean()) < 0.02
