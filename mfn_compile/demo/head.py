"""Large areas of the picture: skin, ears, neck, hair, beard."""

from __future__ import annotations

import numpy as np

from mfn_compile.demo.canvas import EVERYWHERE, Array, Canvas, cover, ramp
from mfn_compile.demo.geometry import gaussian
from mfn_compile.demo.identity import Identity
from mfn_compile.demo.palette import hair_colour, mix, shade, skin_colour

# Height of the widest part of the head, in face units below the eyes.
HEAD_MIDDLE = 0.12


def outline(canvas: Canvas, who: Identity, grow: float = 0.0) -> Array:
    """Signed pixel distance to the head outline, float32 [112, 112], negative inside."""
    head = who.head
    x, y = canvas.grid.x, canvas.grid.y - np.float32(HEAD_MIDDLE)
    below = np.clip(y * np.float32(1 / (head.chin + grow - HEAD_MIDDLE)), 0, None)
    above = np.clip(y * np.float32(1 / (head.crown + grow + HEAD_MIDDLE)), None, 0)
    narrow = 1 - np.float32(head.jaw) * np.clip(below * np.float32(1.5), 0, 1)
    wide = x / (np.float32(head.width + grow) * narrow)
    low = below * below
    # A fourth power keeps the jaw square, a second power makes the chin pointed.
    low += np.float32(head.squareness) * low * (low - 1)
    radius = np.sqrt(wide * wide + np.abs(low) + above * above)
    distance: Array = (radius - 1) * np.float32((head.width + grow) * canvas.grid.scale)
    return distance


def paint_behind(canvas: Canvas, who: Identity) -> None:
    """Hair behind the head, neck, clothes and ears."""
    grid, hair = canvas.grid, who.hair
    back = cover(outline(canvas, who, 0.5 * hair.volume), 2.0)
    back *= 1 - ramp(grid.y, hair.side - 0.05, hair.side + 0.05)
    if hair.side > 1.2:
        strands = cover((np.abs(grid.x) - np.float32(who.head.width + 0.35 * hair.volume)) * 30)
        back = np.maximum(back, strands * ramp(grid.y, -0.1, 0.3))
    skin = skin_colour(who)
    neck_half = 0.62 * who.head.width
    neck = cover((np.abs(grid.x) - np.float32(neck_half)) * 30) * ramp(grid.y, 0.7, 0.8)
    canvas.paint(EVERYWHERE, back, shade(hair_colour(who), 0.8))
    canvas.paint(EVERYWHERE, neck, shade(skin, 0.72))
    size = who.head.ear_size
    for side in (-1.0, 1.0):
        where = canvas.window(side * who.head.width, 0.25, 0.3, 0.6)
        dx = (grid.x[where] - np.float32(side * who.head.width)) / np.float32(0.55 * size)
        dy = (grid.y[where] - np.float32(0.22)) / np.float32(1.35 * size)
        distance = (np.sqrt(dx * dx + dy * dy) - 1) * np.float32(0.6 * size * grid.scale)
        canvas.paint(where, cover(distance), shade(skin, 0.86))


def paint_skin(canvas: Canvas, who: Identity) -> Array:
    """The face area; returns its coverage, float32 [112, 112]."""
    grid, skin = canvas.grid, who.skin
    face = cover(outline(canvas, who), 1.5)
    canvas.paint(EVERYWHERE, face, skin_colour(who))
    phase = np.float32(skin.blotch_phase)
    waves = np.sin(grid.x * 5 + phase) * np.sin(grid.y * 4 + 2 * phase)
    waves += np.sin(grid.x * 9 - grid.y * 6 + 3 * phase)
    canvas.darken(EVERYWHERE, waves * face * np.float32(skin.blotch * 0.5), (0.7, 1.0, 1.1))
    cheek = gaussian(np.abs(grid.x) - np.float32(0.6), grid.y - np.float32(0.62), 0.32, 0.28)
    canvas.darken(EVERYWHERE, cheek * face * np.float32(skin.blush), (0.1, 1.0, 0.85))
    return face


def paint_beard(canvas: Canvas, who: Identity, face: Array) -> None:
    """Beard and moustache as a density of hair over the skin."""
    grid, hair, mouth = canvas.grid, who.hair, who.mouth
    beard = float(np.clip(hair.beard, 0, 0.9))
    moustache = float(np.clip(hair.moustache, 0, 0.9))
    if beard + moustache <= 0.0:
        return
    side = np.abs(grid.x)
    # The beard line climbs from the chin to the ears.
    line = np.float32(hair.beard_line + 0.12) - np.float32(0.75) * ramp(side, 0.45, 1.1)
    density = np.float32(beard) * ramp(grid.y - line, -0.08, 0.12)
    lip_top = mouth.drop - mouth.upper - 0.05
    above = gaussian(side * np.float32(0.8), grid.y - np.float32(lip_top - 0.03), 0.36, 0.085)
    density = np.maximum(density, np.float32(moustache) * above)
    grain = np.sin(grid.x * 61 + 3 * np.sin(grid.y * 23)) * np.sin(grid.y * 57)
    density = density * face * (1 + np.float32(0.15) * grain)
    canvas.paint(EVERYWHERE, np.clip(density, 0, 0.95), shade(hair_colour(who), 0.9))


def paint_hair(canvas: Canvas, who: Identity) -> None:
    """Hair that grows over the forehead and the temples."""
    grid, hair = canvas.grid, who.hair
    side = np.abs(grid.x)
    shape = np.float32(hair.round_off) * grid.x * grid.x + np.float32(hair.part) * grid.x
    shape += np.float32(hair.peak) * np.exp(-(grid.x * grid.x) * 30)
    line = shape - np.float32(hair.line)
    front = ramp(line - grid.y, -0.04, 0.06)
    edge = np.float32(who.head.width - 0.05 - hair.temple) - np.float32(0.10) * np.abs(grid.y)
    temple = ramp(side - edge, -0.03, 0.06) * (1 - ramp(grid.y, hair.side - 0.1, hair.side + 0.1))
    inside = cover(outline(canvas, who, hair.volume), 2.0)
    alpha = np.maximum(front, temple) * inside
    strand = np.sin(grid.x * np.float32(hair.strand) + 2 * np.sin(grid.y * 5 + grid.x * 3))
    colour = hair_colour(who)
    canvas.paint(EVERYWHERE, alpha, colour)
    lights = np.float32(0.10) * strand * alpha
    for plane, value in zip(canvas.rgb, mix(colour, (1.0, 1.0, 1.0), 0.15), strict=True):
        plane += lights * np.float32(value)
