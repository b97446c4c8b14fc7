"""Colours of skin, hair and eyes as piecewise linear scales (display values, 0..1)."""

from __future__ import annotations

from mfn_compile.demo.canvas import Colour
from mfn_compile.demo.identity import Identity

SKIN = [(0.96, 0.83, 0.75), (0.90, 0.72, 0.60), (0.77, 0.57, 0.44), (0.58, 0.39, 0.28),
        (0.36, 0.24, 0.18)]  # fmt: skip
HAIR = [(0.85, 0.72, 0.48), (0.62, 0.43, 0.26), (0.36, 0.23, 0.14), (0.17, 0.12, 0.10),
        (0.09, 0.08, 0.08)]  # fmt: skip
IRIS = [(0.24, 0.14, 0.08), (0.36, 0.22, 0.11), (0.45, 0.36, 0.18), (0.34, 0.45, 0.32),
        (0.36, 0.53, 0.68)]  # fmt: skip
GREY_HAIR = (0.72, 0.71, 0.70)


def scale_colour(stops: list[Colour], position: float) -> Colour:
    """The colour at ``position`` in [0, 1] on a scale of evenly spaced stops."""
    at = min(max(position, 0.0), 1.0) * (len(stops) - 1)
    left = min(int(at), len(stops) - 2)
    return mix(stops[left], stops[left + 1], at - left)


def mix(first: Colour, second: Colour, amount: float) -> Colour:
    """Blend two colours; ``amount`` 0 gives the first."""
    red, green, blue = (a + (b - a) * amount for a, b in zip(first, second, strict=True))
    return red, green, blue


def shade(colour: Colour, factor: float) -> Colour:
    """Scale a colour's brightness."""
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def skin_colour(who: Identity) -> Colour:
    """Base skin colour."""
    red, green, blue = scale_colour(SKIN, who.skin.tone)
    return red + who.skin.undertone, green, blue - who.skin.undertone


def _darkness(who: Identity) -> float:
    return min(max(2.2 * who.skin.tone - 0.6, 0.0), 1.0)


def hair_colour(who: Identity) -> Colour:
    """Hair colour; darker skin mostly comes with darker hair."""
    melanin = who.hair.melanin
    melanin += (1 - melanin) * _darkness(who)
    colour = scale_colour(HAIR, melanin)
    return mix(colour, GREY_HAIR, min(max(who.hair.grey, 0.0), 1.0))


def iris_colour(who: Identity) -> Colour:
    """Iris colour; darker skin mostly comes with darker eyes."""
    dark = _darkness(who)
    colour = scale_colour(IRIS, who.eyes.iris_hue * (1 - 0.8 * dark))
    return shade(colour, who.eyes.iris_value)


def lip_colour(who: Identity) -> Colour:
    """Lip colour, between skin and red."""
    skin = skin_colour(who)
    red = (0.30 + 0.50 * skin[0], 0.08 + 0.38 * skin[1], 0.10 + 0.42 * skin[2])
    return mix(shade(skin, 0.93), red, min(max(who.mouth.redness + 0.25, 0.0), 1.0))
