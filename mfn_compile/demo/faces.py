"""Procedurally rendered faces: the picture source of the demo model.

Every picture follows from two integers, the identity seed (who) and the shot seed (which picture
of that person), and from nothing else: not from the other pictures of a batch, nor from any
global random state. The crops are framed like faces aligned with five landmarks for ArcFace.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mfn_compile.demo import camera, features, head, relief
from mfn_compile.demo.canvas import Canvas
from mfn_compile.demo.geometry import SIZE, face_grid
from mfn_compile.demo.identity import Identity, groomed, sample_identity
from mfn_compile.demo.shot import Shot, sample_shot

__all__ = ["SIZE", "render", "render_one"]

Seeds = npt.ArrayLike


def render_one(who: Identity, shot: Shot) -> npt.NDArray[np.uint8]:
    """Render one picture of ``who`` under the conditions ``shot``; uint8 [112, 112, 3] RGB."""
    canvas = Canvas(face_grid(who, shot))
    camera.paint_backdrop(canvas, shot)
    head.paint_behind(canvas, who)
    camera.paint_clothes(canvas, who, shot)
    face = head.paint_skin(canvas, who)
    features.paint_folds(canvas, who, shot)
    features.paint_nose(canvas, who)
    features.paint_marks(canvas, who)
    head.paint_beard(canvas, who, face)
    features.paint_mouth(canvas, who, shot)
    features.paint_eyes(canvas, who, shot)
    features.paint_brows(canvas, who, shot)
    head.paint_hair(canvas, who)
    camera.paint_hat(canvas, who, shot)
    relief.light_face(canvas, who, shot)
    camera.paint_glasses(canvas, who, shot)
    camera.paint_cover(canvas, shot)
    return camera.develop(canvas, shot)


def render(identity_seeds: Seeds, shot_seeds: Seeds) -> npt.NDArray[np.uint8]:
    """Render aligned face crops.

    Args:
        identity_seeds: non-negative integers [N]; equal seeds are the same person.
        shot_seeds: non-negative integers [N]; number of the picture of that person.

    Returns:
        uint8 [N, 112, 112, 3], RGB. Image ``i`` depends on the i-th pair of seeds only.
    """
    who = np.asarray(identity_seeds, dtype=np.int64)
    which = np.asarray(shot_seeds, dtype=np.int64)
    if who.ndim != 1 or who.shape != which.shape:
        raise ValueError(f"seeds must be two vectors of one length, got {who.shape}, {which.shape}")
    if who.size and min(who.min(), which.min()) < 0:
        raise ValueError("seeds must not be negative")
    images = np.empty((who.size, SIZE, SIZE, 3), dtype=np.uint8)
    for row, (person, picture) in enumerate(zip(who.tolist(), which.tolist(), strict=True)):
        shot = sample_shot(person, picture)
        images[row] = render_one(groomed(sample_identity(person), shot.grooming), shot)
    return images
