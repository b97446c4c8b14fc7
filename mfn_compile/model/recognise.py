"""Finds the layout that a state dict has and the network that it belongs to.

Keys decide the layout, shapes decide the sizes. Every key must be used: what is left over or
missing is an error, because a network loaded in part still computes something.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from mfn_compile.errors import BadInputError
from mfn_compile.model.layouts import LAYOUTS, Layout, Stage, Unit

BN_TENSORS = ("weight", "bias", "running_mean", "running_var")
COUNTER = "num_batches_tracked"
MAX_BLOCKS = 256


@dataclass
class Match:
    """How a state dict reads as one layout: canonical keys, and what does not fit."""

    layout: Layout
    keys: dict[str, str] = field(default_factory=dict)  # canonical key -> key in the file
    first_strides: list[int | None] = field(default_factory=list)  # one a block
    missing: list[str] = field(default_factory=list)
    leftover: list[str] = field(default_factory=list)
    prelu: bool = True

    @property
    def fits(self) -> bool:
        """Whether every key was used and none is missing."""
        return not self.missing and not self.leftover

    @property
    def score(self) -> float:
        """Share of the keys that agree, 0 to 1."""
        total = len(self.keys) + len(self.missing) + len(self.leftover)
        return len(self.keys) / total if total else 0.0

    def describe(self) -> str:
        """One clause: what this layout misses and what it does not know."""
        parts = []
        if self.missing:
            parts.append(f"misses {_some(self.missing)}")
        if self.leftover:
            parts.append(f"does not know {_some(self.leftover)}")
        return f"{self.layout.name} {' and '.join(parts)}"


def _some(keys: list[str], show: int = 3) -> str:
    rest = f" and {len(keys) - show} more" if len(keys) > show else ""
    return ", ".join(keys[:show]) + rest


def recognise(state: Mapping[str, Tensor], where: str) -> Match:
    """The layout that uses every key of `state`.

    Raises:
        BadInputError: no layout does; the message names what each one misses, nearest first.
    """
    matches = [match(layout, state) for layout in LAYOUTS]
    for candidate in matches:
        if candidate.fits:
            return candidate
    matches.sort(key=lambda m: m.score, reverse=True)
    raise BadInputError(
        "the checkpoint is no MobileFaceNet in a known layout",
        where=where,
        why="Tried, nearest first: " + "; ".join(m.describe() for m in matches),
        hint="export the network to ONNX and pass the .onnx file, or rename its keys to one of "
        "these layouts",
    )


def match(layout: Layout, state: Mapping[str, Tensor]) -> Match:
    """Read `state` as `layout`; never raises, the result says what does not fit."""
    found = Match(layout)
    if layout.activation_optional:
        found.prelu = f"{layout.stem.act}.weight" in state
    for name, unit in _outer_units(layout, state):
        _take(found, state, name, unit)
    paths, found.first_strides = _blocks(layout, state)
    for index, path in enumerate(paths):
        for name, unit in (
            ("expand", layout.expand),
            ("depthwise", layout.depth),
            ("project", layout.project),
        ):
            _take(found, state, f"blocks.{index}.{name}", unit.under(path))
    if not paths:
        found.missing.append(f"{layout.expand.under(layout.stages[0].path.format(0)).conv}.weight")
    for stage in layout.stages:
        if paths and not stage.optional and not list(_stage_paths(layout, state, stage)):
            found.missing.append(f"{layout.expand.under(stage.path.format(0)).conv}.weight")
    used = set(found.keys.values())
    found.leftover = [
        key for key in state if key not in used and not _counts_batches(key, found.keys, state)
    ]
    return found


def _outer_units(layout: Layout, state: Mapping[str, Tensor]) -> Iterator[tuple[str, Unit]]:
    """The units outside the blocks that are required or present."""
    units = {
        "stem": layout.stem,
        "depthwise": layout.depthwise,
        "pointwise": layout.pointwise,
        "head": layout.head,
        "global_depthwise": layout.global_depthwise,
        "linear": layout.linear,
    }
    for name, unit in units.items():
        if unit is None:
            continue
        if name in layout.optional and f"{unit.conv}.weight" not in state:
            continue
        yield name, unit


def _stage_paths(layout: Layout, state: Mapping[str, Tensor], stage: Stage) -> Iterator[str]:
    many = "{}" in stage.path
    for index in range(MAX_BLOCKS if many else 1):
        path = stage.path.format(index)
        if f"{layout.expand.under(path).conv}.weight" not in state:
            return
        yield path


def _blocks(layout: Layout, state: Mapping[str, Tensor]) -> tuple[list[str], list[int | None]]:
    paths: list[str] = []
    strides: list[int | None] = []
    for stage in layout.stages:
        for index, path in enumerate(_stage_paths(layout, state, stage)):
            paths.append(path)
            later = None if stage.first_stride is None else 1
            strides.append(stage.first_stride if index == 0 else later)
    return paths, strides


def _take(found: Match, state: Mapping[str, Tensor], name: str, unit: Unit) -> None:
    """Enter the tensors of one unit, or note that they are missing."""
    last = name == "linear"
    wanted = {f"{name}.conv.weight": f"{unit.conv}.weight"}
    if last and f"{unit.conv}.bias" in state:
        wanted[f"{name}.conv.bias"] = f"{unit.conv}.bias"
    if not last or f"{unit.bn}.running_mean" in state:
        for tensor in BN_TENSORS:
            # a last BatchNorm without scale or shift has no such tensor
            if last and tensor in ("weight", "bias") and f"{unit.bn}.{tensor}" not in state:
                continue
            wanted[f"{name}.bn.{tensor}"] = f"{unit.bn}.{tensor}"
    if unit.act and found.prelu:
        wanted[f"{name}.act.weight"] = f"{unit.act}.weight"
    for canonical, source in wanted.items():
        if source in state:
            found.keys[canonical] = source
        else:
            found.missing.append(source)


def _counts_batches(key: str, keys: Mapping[str, str], state: Mapping[str, Tensor]) -> bool:
    """Whether `key` is the step counter of a BatchNorm that is used."""
    if not key.endswith(f".{COUNTER}") or state[key].dim() != 0:
        return False
    return f"{key.removesuffix(COUNTER)}running_mean" in set(keys.values())
