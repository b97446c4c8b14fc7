"""What differs between two pictures of one person: pose, light, expression, camera.

The spreads in this module set the difficulty of the rendered benchmark.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mfn_compile.demo.sampling import draw, generator, normal, uniform

# Keeps the shot streams apart from the identity streams of the same integers.
SHOT_STREAM = 0x5407


@dataclass(frozen=True)
class Pose:
    """Head pose in radians, and what the landmark detector gets wrong, in pixels."""

    yaw: float = normal(0.0, 0.16)
    pitch: float = normal(0.0, 0.09)
    roll: float = normal(0.0, 0.025)
    zoom: float = normal(0.0, 0.02)
    shift_x: float = normal(0.0, 0.8)
    shift_y: float = normal(0.0, 0.8)


@dataclass(frozen=True)
class Expression:
    """Facial expression; negative ``open`` and ``blink`` mean closed mouth, open eyes."""

    open: float = uniform(-0.25, 0.20)
    smile: float = normal(0.2, 0.35)
    blink: float = uniform(-1.0, 0.75)
    brow: float = normal(0.0, 0.022)
    gaze_x: float = normal(0.0, 0.035)
    gaze_y: float = normal(0.0, 0.012)


@dataclass(frozen=True)
class Grooming:
    """What hair and beard do between two pictures."""

    beard: float = uniform(-0.25, 0.25)
    fringe: float = normal(0.0, 0.035)
    length: float = normal(0.0, 0.18)
    volume: float = normal(0.0, 0.03)
    bleach: float = normal(0.0, 0.06)


@dataclass(frozen=True)
class Light:
    """Light direction, strength and colour."""

    x: float = normal(0.0, 0.40)
    y: float = normal(-0.30, 0.25)
    ambient: float = uniform(0.45, 0.85)
    gain: float = normal(1.0, 0.12)
    gamma: float = normal(0.0, 0.10)
    warm: float = normal(0.0, 0.05)
    green: float = normal(0.0, 0.02)
    saturation: float = normal(0.95, 0.11)


@dataclass(frozen=True)
class Occlusion:
    """Glasses, scarf, patch: the ``*_draw`` fields decide which of them are there."""

    glasses_draw: float = uniform(0.0, 1.0)
    glasses_size: float = normal(0.27, 0.025)
    glasses_rim: float = uniform(0.015, 0.040)
    glasses_tint: float = uniform(-2.0, 0.9)
    hat_draw: float = uniform(0.0, 1.0)
    hat_height: float = uniform(0.0, 1.0)
    cover_draw: float = uniform(0.0, 1.0)
    cover_x: float = uniform(0.0, 112.0)
    cover_y: float = uniform(0.0, 112.0)
    cover_size: float = uniform(9.0, 20.0)
    red: float = uniform(0.05, 0.95)
    green: float = uniform(0.05, 0.95)
    blue: float = uniform(0.05, 0.95)


@dataclass(frozen=True)
class Backdrop:
    """Two background colours and the waves that blend them."""

    red: float = uniform(0.05, 0.95)
    green: float = uniform(0.05, 0.95)
    blue: float = uniform(0.05, 0.95)
    red_2: float = uniform(0.05, 0.95)
    green_2: float = uniform(0.05, 0.95)
    blue_2: float = uniform(0.05, 0.95)
    wave_x: float = normal(0.0, 0.08)
    wave_y: float = normal(0.0, 0.08)
    phase: float = uniform(0.0, 6.28)
    cloth: float = uniform(0.0, 1.0)


@dataclass(frozen=True)
class Camera:
    """Blur (in binomial passes) and sensor noise (in grey levels)."""

    blur: float = uniform(-0.5, 2.5)
    noise: float = uniform(1.0, 5.5)


@dataclass(frozen=True)
class Shot:
    """All parameters of one picture, and the generator that draws its pixel noise."""

    pose: Pose
    expression: Expression
    grooming: Grooming
    light: Light
    occlusion: Occlusion
    backdrop: Backdrop
    camera: Camera
    rng: np.random.Generator


def sample_shot(identity_seed: int, shot_seed: int) -> Shot:
    """The picture conditions that belong to (``identity_seed``, ``shot_seed``)."""
    rng = generator(SHOT_STREAM, identity_seed, shot_seed)
    return Shot(
        pose=draw(Pose, rng),
        expression=draw(Expression, rng),
        grooming=draw(Grooming, rng),
        light=draw(Light, rng),
        occlusion=draw(Occlusion, rng),
        backdrop=draw(Backdrop, rng),
        camera=draw(Camera, rng),
        rng=rng,
    )
