"""Small features of the face: eyes, brows, nose, mouth, folds and marks."""

from __future__ import annotations

import numpy as np

from mfn_compile.demo.canvas import Array, Canvas, Slices, cover, ramp
from mfn_compile.demo.geometry import gaussian, mouth_half_width
from mfn_compile.demo.identity import Identity
from mfn_compile.demo.palette import hair_colour, iris_colour, lip_colour, shade, skin_colour
from mfn_compile.demo.shot import Shot


def _local(canvas: Canvas, where: Slices, x: float, y: float, side: float, tilt: float
           ) -> tuple[Array, Array]:  # fmt: skip
    """Coordinates around (x, y), mirrored so that +x points away from the nose, then tilted."""
    dx = (canvas.grid.x[where] - np.float32(x)) * np.float32(side)
    dy = canvas.grid.y[where] - np.float32(y)
    cos, sin = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
    return dx * cos + dy * sin, dy * cos - dx * sin


def paint_eyes(canvas: Canvas, who: Identity, shot: Shot) -> None:
    """Both eyes with lids, iris, pupil and catch light."""
    for side in (-1.0, 1.0):
        _paint_eye(canvas, who, shot, side)


def _paint_eye(canvas: Canvas, who: Identity, shot: Shot, side: float) -> None:
    eyes, mood, scale = who.eyes, shot.expression, np.float32(canvas.grid.scale)
    centre = side * eyes.spacing
    where = canvas.window(centre, 0.0, 0.36, 0.30)
    u, v = _local(canvas, where, centre, 0.0, side, eyes.tilt)
    opening = eyes.opening * (1 - 0.9 * max(mood.blink, 0.0)) * (1 - 0.15 * max(mood.smile, 0))
    across = np.clip(1 - (u * np.float32(1 / eyes.width)) ** 2, -1, 1)
    # A flatter lid curve makes the eye rounder; the almond shape has sharper corners.
    lid = across * (np.float32(eyes.almond) + np.float32(1 - eyes.almond) * np.abs(across))
    upper, lower = -np.float32(1.15 * opening) * lid, np.float32(0.80 * opening) * lid
    inside = cover(np.maximum(upper - v, v - lower) * scale)
    canvas.paint(where, inside, (0.90, 0.88, 0.86))
    gaze = u - np.float32(side * mood.gaze_x), v - np.float32(mood.gaze_y - 0.012)
    radius = np.sqrt(gaze[0] ** 2 + gaze[1] ** 2)
    iris = iris_colour(who)
    canvas.paint(where, inside * cover((radius - np.float32(eyes.iris_size)) * scale), iris)
    rim = cover((np.abs(radius - np.float32(eyes.iris_size)) - np.float32(0.010)) * scale)
    canvas.darken(where, rim * inside * np.float32(0.5))
    pupil = cover((radius - np.float32(0.42 * eyes.iris_size)) * scale)
    canvas.paint(where, inside * pupil, (0.04, 0.04, 0.05))
    glint = gaussian(gaze[0] - np.float32(0.03 * side), gaze[1] + np.float32(0.03), 0.02, 0.02)
    canvas.paint(where, inside * glint * np.float32(0.8), (1.0, 1.0, 1.0))
    width = ramp(across, -0.25, 0.1)
    lash = cover((np.abs(v - upper) - np.float32(0.016 + 0.012 * eyes.lash)) * scale) * width
    canvas.darken(where, lash * np.float32(np.clip(eyes.lash, 0.2, 0.95)))
    below = cover((np.abs(v - lower) - np.float32(0.010)) * scale) * width
    canvas.darken(where, below * np.float32(0.30), (0.8, 1.0, 1.0))
    fold = np.abs(v - upper * np.float32(1.1) + np.float32(eyes.crease))
    canvas.darken(where, cover((fold - np.float32(0.008)) * scale, 1.5) * width * np.float32(0.35))
    bag = gaussian(u, v - np.float32(0.17), 0.16, 0.05)
    canvas.darken(where, bag * np.float32(max(who.skin.eye_bag, 0.0)), (0.8, 1.0, 0.9))


def paint_brows(canvas: Canvas, who: Identity, shot: Shot) -> None:
    """Eyebrows: a tapered arch in the colour of the hair."""
    brows, scale = who.brows, np.float32(canvas.grid.scale)
    colour = shade(hair_colour(who), 0.75)
    height = brows.height + shot.expression.brow
    for side in (-1.0, 1.0):
        centre = side * (who.eyes.spacing + brows.inset)
        where = canvas.window(centre, -height, 0.45, 0.25)
        u, v = _local(canvas, where, centre, -height, side, brows.tilt)
        along = u * np.float32(1 / brows.length)
        curve = np.float32(brows.arch) * (along * along - 1) + np.float32(0.3 * brows.arch)
        thick = np.float32(brows.thickness) * np.clip(1 - np.float32(0.45) * (along + 1), 0.3, 1)
        distance = (np.abs(v - curve) - thick) * scale
        alpha = cover(distance, 2.0) * (1 - ramp(np.abs(along), 0.88, 1.1))
        canvas.paint(where, alpha * np.float32(np.clip(brows.density, 0.25, 1)), colour)


def paint_nose(canvas: Canvas, who: Identity) -> None:
    """Nostrils and wings; the bridge and the tip come from the relief."""
    nose = who.nose
    where = canvas.window(0.0, nose.length, 0.5, 0.35)
    x, y = canvas.grid.x[where], canvas.grid.y[where]
    side = np.abs(x)
    hole = gaussian(
        side - np.float32(0.52 * nose.width), y - np.float32(nose.length + 0.085), 0.055,
        nose.nostril * 0.8,
    )  # fmt: skip
    canvas.darken(where, np.clip(hole * np.float32(1.0), 0, 0.75), (0.9, 1.0, 1.0))
    wing_x = side - np.float32(nose.width + 0.02) + (y - np.float32(nose.length + 0.02)) ** 2 * 3
    wing = gaussian(wing_x, y - np.float32(nose.length + 0.03), 0.022, 0.075)
    canvas.darken(where, wing * np.float32(0.28), (0.85, 1.0, 1.0))
    under = gaussian(x, y - np.float32(nose.length + 0.13), 0.9 * nose.width, 0.04)
    canvas.darken(where, under * np.float32(0.18), (0.9, 1.0, 1.0))


def paint_mouth(canvas: Canvas, who: Identity, shot: Shot) -> None:
    """Lips with a bow, the line between them, and the open mouth with teeth."""
    mouth, mood, scale = who.mouth, shot.expression, np.float32(canvas.grid.scale)
    half = mouth_half_width(who, shot)
    gap = max(mood.open, 0.0)
    where = canvas.window(0.0, mouth.drop + 0.1, half + 0.15, 0.45)
    x = canvas.grid.x[where]
    along = np.clip(np.abs(x) * np.float32(1 / half), 0, 1.3)
    lens = np.clip(1 - along * along, 0, 1)
    smile = np.float32(0.10 * mood.smile + mouth.curve) * (along * along)
    y = canvas.grid.y[where] - np.float32(mouth.drop) + smile
    bow = 1 - np.float32(mouth.bow) * np.exp(-((along * 4) ** 2))
    top = -np.float32(mouth.upper * 1.25) * np.sqrt(lens) * bow * (1 - np.float32(0.35) * along)
    top -= np.float32(0.25 * gap) * lens
    bottom = np.float32(mouth.lower) * np.sqrt(lens) + np.float32(gap) * lens
    lips = cover(np.maximum(top - y, y - bottom) * scale)
    colour = lip_colour(who)
    canvas.paint(where, lips * cover(-y * scale, 4.0), shade(colour, 0.86))
    canvas.paint(where, lips * cover(y * scale, 4.0), colour)
    # The parting widens into the open mouth; upper teeth show below its top edge.
    roof, floor = -np.float32(0.25 * gap) * lens, np.float32(gap) * lens
    opened = cover((np.maximum(roof - y, y - floor) - np.float32(0.008)) * scale)
    opened *= 1 - ramp(along, 0.92, 1.05)
    canvas.paint(where, opened * np.float32(0.85), (0.22, 0.08, 0.08))
    if gap > 0.02:
        teeth = opened * cover((y - np.float32(0.45 * gap)) * scale)
        canvas.paint(where, teeth * np.float32(0.9), (0.90, 0.87, 0.80))
    below = gaussian(x, y - np.float32(mouth.lower + gap + 0.07), 0.6 * half, 0.045)
    canvas.darken(where, below * np.float32(0.16))


def paint_folds(canvas: Canvas, who: Identity, shot: Shot) -> None:
    """The folds from the nose to the mouth corners, deeper when smiling."""
    depth = who.skin.fold * (1 + max(shot.expression.smile, 0.0))
    if depth <= 0.0:
        return
    nose, mouth = who.nose, who.mouth
    half = mouth_half_width(who, shot)
    where = canvas.window(0.0, (nose.length + mouth.drop) / 2, 0.8, 0.45)
    side, y = np.abs(canvas.grid.x[where]), canvas.grid.y[where]
    t = np.clip((y - np.float32(nose.length)) * np.float32(1 / (mouth.drop - nose.length)), -1, 2)
    path = np.float32(nose.width + 0.05) + np.float32(half + 0.04 - nose.width) * t
    strength = ramp(t, -0.05, 0.25) * (1 - ramp(t, 0.8, 1.15))
    canvas.darken(where, gaussian(side - path, y * 0, 0.035, 1.0) * strength * np.float32(depth))


def paint_marks(canvas: Canvas, who: Identity) -> None:
    """Moles of the identity."""
    for mark in who.marks:
        if mark.size <= 0.01:
            continue
        where = canvas.window(mark.x, mark.y, 0.12, 0.12)
        dx = canvas.grid.x[where] - np.float32(mark.x)
        dy = canvas.grid.y[where] - np.float32(mark.y)
        distance = (np.sqrt(dx * dx + dy * dy) - np.float32(mark.size)) * np.float32(
            canvas.grid.scale
        )
        dark = shade(skin_colour(who), 0.45)
        canvas.paint(where, cover(distance, 1.5) * np.float32(mark.depth), dark)
