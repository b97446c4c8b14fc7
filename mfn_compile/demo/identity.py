"""What makes a rendered face one person: shape, colours and marks, drawn from a seed.

Lengths are in face units: about one distance between the eye centres, x to the right of the
image, y down, the origin between the eyes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from mfn_compile.demo.sampling import draw, generator, normal, uniform
from mfn_compile.demo.shot import Grooming

# Keeps the identity streams apart from the shot streams of the same integers.
IDENTITY_STREAM = 0x1D


@dataclass(frozen=True)
class Head:
    """Outline and relief of the head."""

    width: float = normal(1.16, 0.075)
    chin: float = normal(1.72, 0.09)
    crown: float = normal(1.75, 0.06)
    jaw: float = normal(0.16, 0.075)
    squareness: float = normal(0.35, 0.18)
    relief: float = normal(0.85, 0.08)
    cheekbone: float = normal(0.08, 0.035)
    chin_boss: float = normal(0.07, 0.03)
    brow_ridge: float = normal(0.06, 0.03)
    ear_size: float = normal(0.24, 0.035)


@dataclass(frozen=True)
class Skin:
    """Skin colour and what is drawn on it."""

    tone: float = uniform(0.0, 0.9)
    undertone: float = normal(0.0, 0.025)
    blush: float = normal(0.10, 0.05)
    blotch: float = normal(0.03, 0.015)
    blotch_phase: float = uniform(0.0, 6.28)
    fold: float = normal(0.12, 0.09)
    eye_bag: float = normal(0.10, 0.07)
    gloss: float = normal(0.10, 0.05)


@dataclass(frozen=True)
class Eyes:
    """Eye shape and colour."""

    spacing: float = normal(0.5, 0.0312)
    width: float = normal(0.205, 0.0216)
    opening: float = normal(0.088, 0.018)
    tilt: float = normal(-0.03, 0.084)
    almond: float = normal(0.55, 0.144)
    socket: float = normal(0.10, 0.036)
    iris_size: float = normal(0.088, 0.0072)
    iris_hue: float = uniform(0.0, 1.0)
    iris_value: float = normal(1.0, 0.144)
    crease: float = normal(0.055, 0.0216)
    lash: float = normal(0.6, 0.192)


@dataclass(frozen=True)
class Brows:
    """Eyebrows, relative to the eyes."""

    height: float = normal(0.275, 0.0456)
    thickness: float = normal(0.043, 0.0144)
    length: float = normal(0.29, 0.0336)
    arch: float = normal(0.05, 0.0336)
    tilt: float = normal(-0.02, 0.096)
    inset: float = normal(0.0, 0.036)
    density: float = normal(0.75, 0.168)


@dataclass(frozen=True)
class Nose:
    """Nose shape; the relief decides how it catches the light."""

    length: float = normal(0.60, 0.054)
    width: float = normal(0.20, 0.0336)
    bridge: float = normal(0.095, 0.0216)
    height: float = normal(0.27, 0.06)
    tip: float = normal(0.10, 0.036)
    nostril: float = normal(0.045, 0.012)


@dataclass(frozen=True)
class Mouth:
    """Mouth shape and colour."""

    drop: float = normal(1.14, 0.054)
    width: float = normal(0.40, 0.042)
    upper: float = normal(0.070, 0.024)
    lower: float = normal(0.095, 0.0264)
    bow: float = normal(0.35, 0.216)
    curve: float = normal(0.0, 0.03)
    redness: float = normal(0.45, 0.192)


@dataclass(frozen=True)
class Hair:
    """Hair and beard."""

    line: float = normal(1.12, 0.11)
    round_off: float = normal(0.12, 0.14)
    peak: float = normal(0.03, 0.06)
    part: float = normal(0.0, 0.12)
    side: float = uniform(-0.7, 2.0)
    temple: float = normal(0.02, 0.06)
    volume: float = normal(0.20, 0.07)
    melanin: float = uniform(0.0, 1.0)
    grey: float = uniform(-2.0, 0.9)
    strand: float = uniform(14.0, 30.0)
    beard: float = uniform(-0.9, 0.75)
    moustache: float = uniform(-0.9, 0.75)
    beard_line: float = normal(0.95, 0.13)


@dataclass(frozen=True)
class Mark:
    """One mole or scar; a size below zero means that the face has none there."""

    x: float = uniform(-0.85, 0.85)
    y: float = uniform(-0.75, 1.5)
    size: float = uniform(-0.05, 0.045)
    depth: float = uniform(0.35, 0.75)


@dataclass(frozen=True)
class Identity:
    """All parameters of one rendered person."""

    head: Head
    skin: Skin
    eyes: Eyes
    brows: Brows
    nose: Nose
    mouth: Mouth
    hair: Hair
    marks: tuple[Mark, ...]


@lru_cache(maxsize=64)
def sample_identity(seed: int) -> Identity:
    """The person that belongs to the identity seed ``seed``."""
    rng = generator(IDENTITY_STREAM, seed)
    return Identity(
        head=draw(Head, rng),
        skin=draw(Skin, rng),
        eyes=draw(Eyes, rng),
        brows=draw(Brows, rng),
        nose=draw(Nose, rng),
        mouth=draw(Mouth, rng),
        hair=draw(Hair, rng),
        marks=tuple(draw(Mark, rng) for _ in range(4)),
    )


def groomed(who: Identity, change: Grooming) -> Identity:
    """The same person with the hair and beard of one picture."""
    hair = replace(
        who.hair,
        line=who.hair.line + change.fringe,
        side=who.hair.side + change.length,
        volume=max(who.hair.volume + change.volume, 0.04),
        melanin=min(max(who.hair.melanin + change.bleach, 0.0), 1.0),
        beard=who.hair.beard + change.beard,
        moustache=who.hair.moustache + change.beard,
    )
    return replace(who, hair=hair)
