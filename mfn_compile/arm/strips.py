"""Which part of each layer is computed when, in a block of layers that goes strip by strip.

The block's result is made some rows at a time. Every layer makes just as much as the layer behind
it needs for them, and nothing twice, so that between two layers only a few rows are kept, in a
buffer that is filled round and round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Window:
    """Rows of the input that one row of the result is made of, and how many there are in all.

    `copied` says that the kernel has the rows that it needs again in a buffer of its own.
    """

    height: int
    stride: int
    top: int
    rows: int
    width: int
    copied: bool = True


@dataclass(frozen=True)
class Sweep:
    """The order in which a layer makes its result: pixel by pixel, rows from top to bottom.

    Attributes:
        rows, width: of the result.
        grain: pixels that are made at once; a call does not begin or end between them.
        window: of a layer that makes whole rows; None where a pixel needs the same one only.
    """

    rows: int
    width: int
    grain: int
    window: Window | None = None

    @property
    def pixels(self) -> int:
        """In all."""
        return self.rows * self.width

    @property
    def grained(self) -> int:
        """Pixels in whole grains; those behind them are made at once."""
        return self.pixels // self.grain * self.grain

    def made(self, wanted: int) -> int:
        """Pixels that are made when so many are wanted."""
        return min(self.pixels, -(-wanted // self.grain) * self.grain)

    def needs(self, pixels: int) -> int:
        """Pixels of the input that must be there to make so many."""
        if self.window is None or not pixels:
            return pixels
        last = (-(-pixels // self.width) - 1) * self.window.stride - self.window.top
        rows = min(self.window.rows, max(0, last + self.window.height))
        return rows * self.window.width

    def released(self, pixels: int) -> int:
        """Pixels of the input that are not read again when so many are made."""
        if self.window is None or self.window.copied or pixels == self.pixels:
            return self.needs(pixels)
        rows = pixels // self.width * self.window.stride - self.window.top
        return min(self.window.rows, max(0, rows)) * self.window.width


@dataclass(frozen=True)
class Sweeps:
    """What is made in each strip.

    Attributes:
        made: a row a layer: pixels that are there after each strip.
        kept: rows of each layer's buffer; all of the result's where they do not go round.
    """

    made: tuple[tuple[int, ...], ...]
    kept: tuple[int, ...]


def schedule(sweeps: Sequence[Sweep], rows: int) -> Sweeps:
    """Strips of `rows` rows of the last layer's result, the last strip with what is left."""
    last = sweeps[-1]
    strips = [_strip(sweeps, y * last.width) for y in range(rows, last.rows, rows)]
    strips.append([sweep.pixels for sweep in sweeps])
    made = tuple(zip(*strips, strict=True))
    kept = [
        _kept(sweep, reader, mine, theirs)
        for (sweep, mine), (reader, theirs) in pairwise(zip(sweeps, made, strict=True))
    ]
    return Sweeps(made, (*kept, last.rows))


def pieces(begin: int, end: int, grained: int, *rounds: int) -> list[tuple[int, int]]:
    """Parts of a run of pixels, cut where a buffer of a `round` of pixels begins again."""
    cuts = {begin, end, *(at for r in rounds for at in range(0, end, r)), grained}
    return list(pairwise(sorted(at for at in cuts if begin <= at <= end)))


def _strip(sweeps: Sequence[Sweep], wanted: int) -> list[int]:
    """Pixels that every layer must have made for so many of the last one's."""
    found = []
    for sweep in reversed(sweeps):
        found.append(sweep.made(wanted))
        wanted = sweep.needs(found[-1])
    return found[::-1]


def _kept(sweep: Sweep, reader: Sweep, made: Sequence[int], theirs: Sequence[int]) -> int:
    """Rows of a buffer that holds what is made and not yet read, in every strip.

    It begins again with a row, and between the grains of both layers.
    """
    read = [0, *(reader.released(pixels) for pixels in theirs[:-1])]
    width = sweep.width
    most = max(-(-end // width) - begin // width for begin, end in zip(read, made, strict=True))
    grains = [each.grain for each in (sweep, reader) if each.window is None]
    while most < sweep.rows and any(most * width % grain for grain in grains):
        most += 1
    return min(most, sweep.rows)
