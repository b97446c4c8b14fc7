"""From the pixels of an aligned crop to face coordinates under a head pose.

The head is a height field over the frontal face plane. A picture is rendered backwards: every
pixel of the crop is carried through the landmark alignment and through the pose to the point
of the frontal face that it shows, so all features can be painted as on a frontal face.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mfn_compile.demo.identity import Identity
from mfn_compile.demo.shot import Shot

Array = npt.NDArray[np.float32]

SIZE = 112

# Where the aligned crop puts the five landmarks: eyes, nose tip, mouth corners (x, y).
TEMPLATE = np.array(
    [[38.3, 51.7], [73.5, 51.5], [56.0, 71.7], [41.5, 92.4], [70.7, 92.2]], dtype=np.float64
)

PIXEL_Y, PIXEL_X = np.meshgrid(
    np.arange(SIZE, dtype=np.float32), np.arange(SIZE, dtype=np.float32), indexing="ij"
)

# The head turns about a point this far below the eyes.
PIVOT_Y = 0.5
# Enough for the steepest nose at the widest pose of sampling.CLIP_SIGMA.
WARP_STEPS = 3


def gaussian(dx: Array, dy: Array, sx: float, sy: float) -> Array:
    """``exp(-(dx/sx)^2 - (dy/sy)^2)`` as float32."""
    return np.exp(-(dx * dx) * np.float32(1 / (sx * sx)) - (dy * dy) * np.float32(1 / (sy * sy)))


def coarse_height(x: Array, y: Array, who: Identity) -> Array:
    """The large shape (dome and nose) that decides how features move under a pose."""
    head, nose = who.head, who.nose
    dome = np.float32(head.relief) * gaussian(x, y - np.float32(0.35), 1.2, 1.7)
    bump = gaussian(x, y - np.float32(nose.length - 0.06), 0.24, 0.34)
    return dome + np.float32(nose.height) * bump


def landmarks(who: Identity, shot: Shot) -> npt.NDArray[np.float64]:
    """Eyes, nose tip and mouth corners on the frontal face, float64 [5, 2]."""
    half = mouth_half_width(who, shot)
    corner = who.mouth.drop - 0.10 * shot.expression.smile
    return np.array(
        [
            [-who.eyes.spacing, 0.0],
            [who.eyes.spacing, 0.0],
            [0.0, who.nose.length],
            [-half, corner],
            [half, corner],
        ]
    )


def mouth_half_width(who: Identity, shot: Shot) -> float:
    """Half of the mouth width, wider when smiling."""
    return who.mouth.width * (1.0 + 0.14 * shot.expression.smile)


@dataclass(frozen=True)
class Similarity:
    """``pixel = [[a, -b], [b, a]] @ point + (tx, ty)``."""

    a: float
    b: float
    tx: float
    ty: float

    @property
    def scale(self) -> float:
        """Pixels per face unit."""
        return float(np.hypot(self.a, self.b))


def fit_similarity(source: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> Similarity:
    """Least squares similarity that takes ``source`` [K, 2] to ``target`` [K, 2]."""
    middle, aim = source.mean(axis=0), target.mean(axis=0)
    p, q = source - middle, target - aim
    norm = float((p * p).sum())
    a = float((p * q).sum()) / norm
    b = float((p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]).sum()) / norm
    tx = float(aim[0] - a * middle[0] + b * middle[1])
    ty = float(aim[1] - b * middle[0] - a * middle[1])
    return Similarity(a, b, tx, ty)


def project(points: npt.NDArray[np.float64], who: Identity, shot: Shot) -> npt.NDArray[np.float64]:
    """Frontal face points [K, 2] as seen under the pose, float64 [K, 2]."""
    x, y = points[:, 0], points[:, 1]
    z = coarse_height(x.astype(np.float32), y.astype(np.float32), who).astype(np.float64)
    sin_yaw, cos_yaw = np.sin(shot.pose.yaw), np.cos(shot.pose.yaw)
    sin_pitch, cos_pitch = np.sin(shot.pose.pitch), np.cos(shot.pose.pitch)
    depth = z * cos_yaw - x * sin_yaw
    seen_x = x * cos_yaw + z * sin_yaw
    seen_y = PIVOT_Y + (y - PIVOT_Y) * cos_pitch - depth * sin_pitch
    return np.stack([seen_x, seen_y], axis=1)


def alignment(who: Identity, shot: Shot) -> Similarity:
    """The alignment of this shot to the template, with its small landmark errors."""
    pose = shot.pose
    cos, sin = np.cos(pose.roll) * (1 + pose.zoom), np.sin(pose.roll) * (1 + pose.zoom)
    centre = TEMPLATE.mean(axis=0)
    turn = np.array([[cos, -sin], [sin, cos]])
    off = np.array([pose.shift_x, pose.shift_y])
    target = (TEMPLATE - centre) @ turn.T + centre + off
    return fit_similarity(project(landmarks(who, shot), who, shot), target)


@dataclass(frozen=True)
class FaceGrid:
    """Face coordinates of every pixel; ``x``, ``y``, ``depth`` are float32 [112, 112]."""

    x: Array
    y: Array
    depth: Array
    scale: float
    align: Similarity


def face_grid(who: Identity, shot: Shot) -> FaceGrid:
    """Carry every pixel of the crop back to the frontal face by fixed point iteration."""
    align = alignment(who, shot)
    norm = align.a**2 + align.b**2
    dx, dy = PIXEL_X - np.float32(align.tx), PIXEL_Y - np.float32(align.ty)
    a, b = np.float32(align.a / norm), np.float32(align.b / norm)
    seen_x, seen_y = a * dx + b * dy, a * dy - b * dx
    sin_yaw, cos_yaw = np.float32(np.sin(shot.pose.yaw)), np.float32(np.cos(shot.pose.yaw))
    sin_pitch = np.float32(np.sin(shot.pose.pitch))
    cos_pitch = np.float32(np.cos(shot.pose.pitch))
    pivot = np.float32(PIVOT_Y)
    x, y = seen_x, seen_y
    for _ in range(WARP_STEPS):
        z = coarse_height(x, y, who)
        x = (seen_x - z * sin_yaw) / cos_yaw
        depth = z * cos_yaw - x * sin_yaw
        y = pivot + (seen_y - pivot + depth * sin_pitch) / cos_pitch
    return FaceGrid(x=x, y=y, depth=depth, scale=align.scale, align=align)
