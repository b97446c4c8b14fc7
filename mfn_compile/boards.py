"""Boards: which cores at which clock, and how far modelled times of each lie from measured ones."""

from __future__ import annotations

from pydantic import Field, model_validator

from mfn_compile.frozen import Frozen

LINE = 64  # bytes of a cache line


class Cache(Frozen):
    """A data cache with least recently used replacement."""

    kib: int = Field(ge=1, le=1 << 16, description="size in KiB")
    ways: int = Field(ge=1, le=64)

    @property
    def bytes(self) -> int:
        """Its size."""
        return self.kib * 1024

    @model_validator(mode="after")
    def _lines_fit(self) -> Cache:
        if self.bytes % (LINE * self.ways):
            raise ValueError(f"{self.kib} KiB are no {self.ways} ways of {LINE}-byte lines")
        return self


class Agreement(Frozen):
    """How a prediction compares with measured times of several networks."""

    spread: float = Field(ge=1, description="geometric deviation of predicted / measured")
    rank: float = Field(ge=-1, le=1, description="rank correlation of predicted and measured")


class Calibration(Frozen):
    """What modelled milliseconds of a board's core are divided by, and how far they then lie off.

    Made by tools/calibrate_virtual_boards.py; docs/virtual-board.md has the table and its caveats.
    """

    ratio: float = Field(gt=0, description="geometric mean of modelled / measured milliseconds")
    spread: float = Field(ge=1, description="geometric deviation of modelled / measured")
    rank: float | None = Field(
        default=None, ge=-1, le=1, description="rank correlation of modelled and measured"
    )
    leave_one_out: float | None = Field(
        default=None,
        ge=1,
        description="geometric deviation when every network is scaled by the others' ratio",
    )
    worst: float | None = Field(
        default=None,
        ge=1,
        description="largest factor, up or down, that a network so scaled lies off by",
    )
    instructions: Agreement | None = Field(
        default=None, description="of the plain number of instructions instead"
    )
    points: int | None = Field(
        default=None, ge=2, description="measured times that it is made from"
    )
    fitted: bool = Field(
        default=False, description="whether they had been seen when the model's rules were chosen"
    )
    source: str = Field(min_length=1, description="where the measured times are published")


class BoardCore(Frozen):
    """Equal cores of a board."""

    core: str = Field(description="a core that the virtual board has a model of")
    clock_ghz: float = Field(gt=0, le=10)
    count: int = Field(default=4, ge=1, le=1024, description="how many there are")
    l1: Cache | None = Field(default=None, description="L1 data cache, if not the core's usual")
    l2: Cache | None = Field(default=None, description="L2 cache, likewise")
    calibration: Calibration | None = Field(
        default=None, description="without it there are modelled cycles, but no milliseconds"
    )


class Board(Frozen):
    """A board that can be bought."""

    title: str = Field(min_length=1, description="as in `modelled for TITLE`")
    cores: tuple[BoardCore, ...] = Field(min_length=1, description="the fastest first")

    @model_validator(mode="after")
    def _cores_differ(self) -> Board:
        names = [entry.core for entry in self.cores]
        if len(set(names)) < len(names):
            raise ValueError(f"the board has two entries for {names[0]!r}")
        return self
