"""Everything between the face and the stored pixels: background, covers, colour, blur, noise."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from mfn_compile.demo.canvas import EVERYWHERE, Array, Canvas, cover, ramp
from mfn_compile.demo.geometry import PIXEL_X, PIXEL_Y, SIZE
from mfn_compile.demo.head import outline
from mfn_compile.demo.identity import Identity
from mfn_compile.demo.shot import Shot

GLASSES_RATE = 0.12
HAT_RATE = 0.06
COVER_RATE = 0.08
LUMA = (0.299, 0.587, 0.114)
CHROMA_NOISE = (0.5, -0.2, -0.6)


def paint_backdrop(canvas: Canvas, shot: Shot) -> None:
    """Two colours blended by a slow wave over the picture."""
    back = shot.backdrop
    wave = PIXEL_X * np.float32(back.wave_x) + PIXEL_Y * np.float32(back.wave_y)
    amount = np.float32(0.5) + np.float32(0.5) * np.sin(wave + np.float32(back.phase))
    canvas.rgb[:] = np.array([back.red, back.green, back.blue], np.float32)[:, None, None]
    canvas.paint(EVERYWHERE, amount, (back.red_2, back.green_2, back.blue_2))


def paint_glasses(canvas: Canvas, who: Identity, shot: Shot) -> None:
    """Rounded frames around both eyes, now and then with dark lenses."""
    worn = shot.occlusion
    if worn.glasses_draw > GLASSES_RATE:
        return
    grid, rim = canvas.grid, np.float32(worn.glasses_rim)
    where = canvas.window(0.0, 0.04, who.head.width, 0.45)
    x, y = np.abs(grid.x[where]), grid.y[where] - np.float32(0.05)
    dx = (x - np.float32(who.eyes.spacing + 0.01)) * np.float32(1 / (worn.glasses_size + 0.06))
    dy = y * np.float32(1 / (worn.glasses_size - 0.04))
    radius = np.sqrt(np.sqrt(dx**4 + dy**4))
    distance = (radius - 1) * np.float32(worn.glasses_size)
    tint = float(np.clip(worn.glasses_tint, 0, 0.9))
    scale = np.float32(grid.scale)
    canvas.darken(where, cover(distance * scale) * np.float32(tint))
    frame = cover((np.abs(distance) - rim) * scale)
    inner = who.eyes.spacing + 0.01 - worn.glasses_size - 0.06
    bridge = cover((np.abs(y + np.float32(0.05)) - rim) * scale)
    bridge *= cover((x - np.float32(inner)) * scale)
    arm = cover((np.abs(y + np.float32(0.05)) - rim) * scale)
    arm *= ramp(x, who.eyes.spacing + worn.glasses_size + 0.06, who.eyes.spacing + 0.40)
    colour = (0.4 * worn.red, 0.4 * worn.green, 0.4 * worn.blue)
    canvas.paint(where, np.maximum(frame, np.maximum(bridge, arm)), colour)


def paint_hat(canvas: Canvas, who: Identity, shot: Shot) -> None:
    """A knitted hat down to the forehead."""
    thing = shot.occlusion
    if thing.hat_draw > HAT_RATE:
        return
    grid = canvas.grid
    edge = np.float32(-0.62 - 0.35 * thing.hat_height) + np.float32(0.05) * grid.x * grid.x
    alpha = cover((grid.y - edge) * np.float32(grid.scale)) * cover(outline(canvas, who, 0.2))
    knit = np.float32(0.92) + np.float32(0.08) * np.sin(grid.x * 40)
    canvas.paint(EVERYWHERE, alpha, (thing.green, thing.blue, thing.red))
    canvas.rgb *= 1 - alpha * (1 - knit)


def paint_cover(canvas: Canvas, shot: Shot) -> None:
    """A flat patch over part of the face, or a scarf over its lower edge."""
    thing = shot.occlusion
    if thing.cover_draw > COVER_RATE:
        return
    colour = (thing.red, thing.green, thing.blue)
    if thing.cover_draw < 0.4 * COVER_RATE:
        edge = np.float32(84 + thing.cover_size) + np.float32(0.1) * (PIXEL_X - 56)
        fabric = np.float32(0.9) + np.float32(0.1) * np.sin(PIXEL_X * np.float32(0.8) + PIXEL_Y)
        canvas.paint(EVERYWHERE, cover(edge - PIXEL_Y) * fabric, colour)
        return
    dx = np.abs(PIXEL_X - np.float32(thing.cover_x)) - np.float32(thing.cover_size)
    dy = np.abs(PIXEL_Y - np.float32(thing.cover_y)) - np.float32(0.8 * thing.cover_size)
    canvas.paint(EVERYWHERE, cover(np.maximum(dx, dy), 3.0), colour)


def paint_clothes(canvas: Canvas, who: Identity, shot: Shot) -> None:
    """Collar below the chin."""
    back = shot.backdrop
    edge = np.float32(who.head.chin + 0.12 + 0.3 * back.cloth)
    distance = (edge - np.abs(canvas.grid.x) * np.float32(0.25) - canvas.grid.y) * 30
    canvas.paint(EVERYWHERE, cover(distance), (back.blue_2, back.red, back.green_2))


def _blurred(rgb: Array) -> Array:
    """One binomial pass [1 2 1]/4 along both axes, edges repeated."""
    rows = rgb * np.float32(0.5)
    quarter = rgb * np.float32(0.25)
    rows[:, 1:] += quarter[:, :-1]
    rows[:, :-1] += quarter[:, 1:]
    rows[:, 0] += quarter[:, 0]
    rows[:, -1] += quarter[:, -1]
    out = rows * np.float32(0.5)
    rows *= np.float32(0.25)
    out[:, :, 1:] += rows[:, :, :-1]
    out[:, :, :-1] += rows[:, :, 1:]
    out[:, :, 0] += rows[:, :, 0]
    out[:, :, -1] += rows[:, :, -1]
    return out


def _exposed(rgb: Array, shot: Shot) -> Array:
    """Saturation, gain, colour cast and gamma."""
    light = shot.light
    grey = np.zeros_like(rgb[0])
    for weight, plane in zip(LUMA, rgb, strict=True):
        grey += np.float32(weight) * plane
    rgb = grey + np.float32(light.saturation) * (rgb - grey)
    gain = light.gain * np.array([1 + light.warm, 1 + light.green, 1 - light.warm])
    rgb = np.clip(rgb * gain.astype(np.float32)[:, None, None], 1e-3, 1.2)
    # Cheaper than np.power and the same to rounding.
    result: Array = np.exp(np.log(rgb) * np.float32(math.exp(light.gamma)))
    return result


def develop(canvas: Canvas, shot: Shot) -> npt.NDArray[np.uint8]:
    """Exposure, colour cast, blur and noise; returns uint8 [112, 112, 3]."""
    rgb = _exposed(canvas.rgb, shot)
    passes = max(shot.camera.blur, 0.0)
    for _ in range(int(passes)):
        rgb = _blurred(rgb)
    rgb += np.float32(passes % 1.0) * (_blurred(rgb) - rgb)
    noise = shot.rng.standard_normal((2, SIZE, SIZE), dtype=np.float32)
    luma, chroma = noise * np.float32(shot.camera.noise)
    rgb *= 255
    rgb += luma
    for plane, share in zip(rgb, CHROMA_NOISE, strict=True):
        plane += np.float32(share) * chroma
    np.clip(rgb, 0, 255, out=rgb)
    pixels: npt.NDArray[np.uint8] = np.rint(rgb).astype(np.uint8)
    return pixels.transpose(1, 2, 0)
