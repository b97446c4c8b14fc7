"""What a device says of one inference: modelled or measured, the whole and kernel by kernel."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mfn_compile.frozen import Frozen

Chance = Literal["likely", "uncertain", "unlikely"]
WayKind = Literal["as it is", "threads", "input", "core"]


class KernelCost(Frozen):
    """One kernel, or one other function, over the whole inference.

    What a device cannot tell is absent: a board knows no instructions, a model no microseconds.
    """

    kernel: str = Field(description="symbol; of a kernel, without mfn_ and the variant")
    in_library: bool = Field(description="whether it is of the library, or of the C library")
    layers: int = Field(ge=0, description="places that call it")
    calls: int = Field(ge=0, description="how often it ran")
    share: float = Field(ge=0, le=1, description="of the cycles or the time of the inference")
    cycles: float | None = Field(
        default=None, ge=0, description="modelled, without waiting for memory; or time by clock"
    )
    microseconds: float | None = Field(default=None, ge=0, description="measured, median")
    instructions: int | None = Field(default=None, ge=0)
    macs: int | None = Field(
        default=None, description="multiply-adds, those on padding too, where it has any"
    )
    macs_per_cycle: float | None = None
    of_peak: float | None = Field(
        default=None, description="macs_per_cycle by the most int8 ones that the core can"
    )
    l1_misses: int | None = Field(default=None, ge=0)
    l2_misses: int | None = Field(default=None, ge=0)
    bytes_moved: int | None = Field(
        default=None, ge=0, description="into the first-level cache: its misses' lines"
    )
    memory_bytes: int | None = Field(default=None, ge=0, description="of these, from memory")
    memory_cycles: float | None = Field(
        default=None,
        ge=0,
        description="that the transfer takes at the core's nominal rates; not in cycles",
    )
    bound: Literal["compute", "memory"] | None = Field(
        default=None, description="memory where memory_cycles exceed cycles"
    )
    code_bytes: int | None = Field(default=None, ge=0)


class Peaks(Frozen):
    """What no code can exceed on a core: the roofs of the roofline plot."""

    macs_per_cycle: float = Field(gt=0, description="int8 multiply-adds of the variant")
    l2_bytes_per_cycle: float = Field(gt=0, description="nominal")
    memory_bytes_per_cycle: float = Field(gt=0, description="nominal")


class Milliseconds(Frozen):
    """Time of one image."""

    value: float = Field(gt=0, description="median where it is measured")
    low: float | None = Field(
        default=None, description="modelled: two geometric deviations of the calibration below"
    )
    high: float | None = Field(default=None, description="likewise above")
    p90: float | None = Field(default=None, description="measured")
    p99: float | None = Field(default=None, description="measured")


class BoardState(Frozen):
    """What a board said of itself while it was timed."""

    boards: tuple[str, ...] = Field(description="names of the boards that shared the work")
    kernel: str = Field(description="release of its operating system's kernel")
    affinity: int | None = Field(description="core that ran it, None where it could not be chosen")
    warm_up: int
    repeats: int
    vectors: int = Field(description="golden vectors whose every bit was right there")
    governor: str | None
    frequency_mhz: tuple[float, ...] = Field(description="before and after, where it is exposed")
    temperature_c: tuple[float, ...] = Field(description="likewise")


class DeviceResult(Frozen):
    """One inference on a device."""

    device: str = Field(description="as it was asked for, like virtual:raspberry-pi-4")
    kind: Literal["modelled", "measured"]
    title: str = Field(description="board and core, or core alone")
    core: str | None = Field(description="name of the core's model; None where it has none")
    clock_ghz: float | None = None
    threads: int = 1
    variant: str
    model: str = Field(default="", description="what modelled cycles are from")
    cycles: float | None = Field(default=None, description="modelled; waiting for memory is not in")
    instructions: int | None = None
    accesses: int | None = Field(default=None, description="loads and stores, one a line touched")
    l1_misses: int | None = None
    l2_misses: int | None = None
    macs: int = Field(ge=0)
    macs_per_cycle: float | None = None
    milliseconds: Milliseconds | None = Field(
        default=None, description="None for a core that is not on a board"
    )
    peaks: Peaks | None = None
    state: BoardState | None = Field(default=None, description="of a board that was there")
    kernels: tuple[KernelCost, ...] = Field(description="the most expensive first")
    warnings: tuple[str, ...] = ()

    def chance(self, limit_ms: float) -> Chance | None:
        """How a modelled time stands to a limit; None where no time was modelled."""
        return None if self.milliseconds is None else chance(self.milliseconds, limit_ms)

    def says(self) -> str:
        """The time in words, with what kind of time it is; cycles where there is no time."""
        where = f"{self.title}, {self.threads} thread{'' if self.threads == 1 else 's'}"
        found = self.milliseconds
        if found is None:
            assert self.cycles is not None
            return f"{self.cycles / 1e6:.1f} million cycles (modelled for {where}; no time)"
        if found.low is None or found.high is None:
            return f"{found.value:.2f} ms (measured on {where}, median)"
        digits = 0 if found.low >= 10 else 1
        interval = f"{found.low:.{digits}f} to {found.high:.{digits}f} ms"
        return f"{found.value:.1f} ms (modelled for {where}, {interval})"


def chance(found: Milliseconds, limit_ms: float) -> Chance | None:
    """How a modelled time stands to a limit; None for a measured one."""
    if found.low is None or found.high is None:
        return None
    if found.high <= limit_ms:
        return "likely"
    return "unlikely" if found.low > limit_ms else "uncertain"


class Way(Frozen):
    """One way to compute an image, on a virtual device.

    Attributes:
        text: what is done.
        cycles: modelled.
        milliseconds: likewise; None for a core that is on no board.
        asks: what it takes.
    """

    kind: WayKind
    text: str
    device: str
    cycles: float = Field(gt=0)
    milliseconds: Milliseconds | None = None
    asks: str

    def chance(self, limit_ms: float) -> Chance | None:
        """How it stands to a limit; None without a time."""
        return None if self.milliseconds is None else chance(self.milliseconds, limit_ms)


class Ways(Frozen):
    """What was modelled beside the artifact as it is, which comes first."""

    ways: tuple[Way, ...]

    def cheapest(self, limit_ms: float) -> Way | None:
        """The first that is likely to keep to a limit, else the first that may; None if none may.

        They are in the order of what they ask: nothing, threads, a training, other hardware.
        """
        for wanted in ("likely", "uncertain"):
            for way in self.ways:
                if way.chance(limit_ms) == wanted:
                    return way
        return None
