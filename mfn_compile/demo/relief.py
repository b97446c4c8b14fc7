"""The fine height field of a face and the shading that follows from it."""

from __future__ import annotations

import numpy as np

from mfn_compile.demo.canvas import Array, Canvas
from mfn_compile.demo.geometry import FaceGrid, gaussian
from mfn_compile.demo.identity import Identity
from mfn_compile.demo.shot import Shot


def fine_height(grid: FaceGrid, who: Identity, shot: Shot) -> Array:
    """Height of every pixel in face units, float32 [112, 112], with the small features."""
    x, y = grid.x, grid.y
    side = np.abs(x)
    nose, head, eyes, mouth = who.nose, who.head, who.eyes, who.mouth
    length = nose.length
    ridge = gaussian(x, y - np.float32(0.55 * length), nose.bridge * 1.3, 0.55 * length)
    tip = gaussian(x, y - np.float32(length - 0.02), 0.11 + 0.2 * nose.tip, 0.12)
    wing = gaussian(side - np.float32(0.66 * nose.width), y - np.float32(length + 0.03), 0.08, 0.09)
    socket = gaussian(side - np.float32(eyes.spacing - 0.02), y + np.float32(0.05), 0.27, 0.17)
    ball = gaussian(side - np.float32(eyes.spacing), y, 0.17, 0.10)
    brow = gaussian(side - np.float32(0.42), y + np.float32(who.brows.height), 0.42, 0.12)
    cheek = gaussian(side - np.float32(0.62), y - np.float32(0.52), 0.30, 0.26)
    lips = gaussian(x, y - np.float32(mouth.drop), mouth.width * 0.9, 0.14)
    chin = gaussian(x, y - np.float32(head.chin - 0.20), 0.26, 0.15)
    fine: Array = np.float32(0.12) * ridge + np.float32(nose.tip) * tip + np.float32(0.07) * wing
    fine -= np.float32(eyes.socket) * socket - np.float32(0.05) * ball
    fine += np.float32(head.brow_ridge) * brow
    fine += np.float32(head.cheekbone * (1 + 0.5 * max(shot.expression.smile, 0))) * cheek
    fine += np.float32(0.05) * lips + np.float32(head.chin_boss) * chin
    return fine


def light_face(canvas: Canvas, who: Identity, shot: Shot) -> None:
    """Multiply the picture by diffuse shading of the relief and add a little gloss."""
    grid, light = canvas.grid, shot.light
    height = (grid.depth + fine_height(grid, who, shot)) * np.float32(grid.scale)
    slope_y, slope_x = np.gradient(height)
    norm = 1 / np.sqrt(slope_x * slope_x + slope_y * slope_y + 1)
    length = float(np.sqrt(light.x**2 + light.y**2 + 1))
    lx, ly, lz = light.x / length, light.y / length, 1 / length
    facing = (np.float32(lz) - slope_x * np.float32(lx) - slope_y * np.float32(ly)) * norm
    diffuse = np.clip(facing, 0, 1)
    # Full light on a surface that faces the camera keeps the albedo as it is.
    shading = np.float32(light.ambient) + np.float32((1 - light.ambient) / lz) * diffuse
    canvas.rgb *= shading
    # Half way between the light and the viewer.
    hx, hy, hz = lx, ly, lz + 1
    half = float(np.sqrt(hx**2 + hy**2 + hz**2))
    shine = (np.float32(hz) - slope_x * np.float32(hx) - slope_y * np.float32(hy)) * norm
    shine = np.clip(shine * np.float32(1 / half), 0, 1)
    shine *= shine
    shine *= shine
    shine *= shine
    shine *= shine
    canvas.rgb += np.float32(who.skin.gloss * (1 - light.ambient)) * shine
