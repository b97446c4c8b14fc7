"""Face alignment: five landmarks to the ArcFace template by a similarity transform.

Coordinates count pixel centres: (0, 0) is the centre of the top left pixel, as in OpenCV.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mfn_compile.errors import BadInputError
from mfn_compile.model.preprocessing import CROP_SIZE

ALIGNER_VERSION = "similarity-5pt-bilinear/2"  # part of every cache key; raise it with the code

# Five-point template of the 112x112 ArcFace crop (InsightFace, `arcface_dst` in face_align.py).
ARCFACE_TEMPLATE: NDArray[np.float64] = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
_MIN_SPREAD = 1e-6  # squared pixels; below it five landmarks are one point


def fit_similarity(
    source: NDArray[np.float64], target: NDArray[np.float64] = ARCFACE_TEMPLATE
) -> NDArray[np.float64]:
    """Least-squares similarity transforms that carry `source` onto `target`.

    With points as complex numbers the transform is w = a z + b, and the least-squares a is the
    regression coefficient of the centred points: Umeyama's solution (1991) for the plane without
    reflections, in closed form.

    Args:
        source: landmarks [N, P, 2] as (x, y) in pixels.
        target: points [P, 2] they should land on, in pixels.

    Returns:
        float64 [N, 2, 3] matrices M with target ≈ M @ (x, y, 1).

    Raises:
        BadInputError: a set of landmarks is not finite or collapses to one point.
    """
    z = source[..., 0] + 1j * source[..., 1]
    w = target[..., 0] + 1j * target[..., 1]
    z_mean, w_mean = z.mean(axis=-1), w.mean()
    z_centred = z - z_mean[..., None]
    spread = (np.abs(z_centred) ** 2).sum(axis=-1)
    unusable = np.flatnonzero(~(spread > _MIN_SPREAD) | ~np.isfinite(spread))
    if unusable.size:
        raise BadInputError(
            "landmarks cannot be aligned",
            where=f"row {unusable[0]} of {len(source)}",
            why="the points are not finite or all in one place",
        )
    a = (z_centred.conj() * (w - w_mean)).sum(axis=-1) / spread
    b = w_mean - a * z_mean
    return np.stack(
        [np.stack([a.real, -a.imag, b.real], -1), np.stack([a.imag, a.real, b.imag], -1)], axis=-2
    )


def invert_similarity(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Invert similarity transforms [N, 2, 3]: z = (w - b) / a."""
    a = matrices[:, 0, 0] + 1j * matrices[:, 1, 0]
    b = matrices[:, 0, 2] + 1j * matrices[:, 1, 2]
    c, d = 1 / a, -b / a
    return np.stack(
        [np.stack([c.real, -c.imag, d.real], -1), np.stack([c.imag, c.real, d.imag], -1)], axis=-2
    )


def warp(
    image: Image.Image, crop_to_image: NDArray[np.float64], size: int = CROP_SIZE
) -> NDArray[np.uint8]:
    """Sample a crop bilinearly; what lies outside of the image is black.

    Args:
        image: RGB image.
        crop_to_image: [2, 3], pixel index in the crop to pixel index in the image.
        size: side of the crop in pixels.

    Returns:
        uint8 RGB [size, size, 3].
    """
    (a, b, c), (d, e, f) = crop_to_image.tolist()
    # Pillow evaluates the transform at pixel centres that sit at index + 1/2, on both sides.
    c += 0.5 - 0.5 * (a + b)
    f += 0.5 - 0.5 * (d + e)
    # In 8 bits Pillow cuts the fraction off, which darkens a crop by half a level; floats do not.
    channels = [
        channel.convert("F").transform(
            (size, size),
            Image.Transform.AFFINE,
            (a, b, c, d, e, f),
            resample=Image.Resampling.BILINEAR,
        )
        for channel in image.split()
    ]
    crop: NDArray[np.float32] = np.stack([np.asarray(channel) for channel in channels], -1)
    return np.rint(crop).astype(np.uint8)
