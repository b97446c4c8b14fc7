"""What a measurement on a board found."""

from __future__ import annotations

from pydantic import Field

from mfn_compile.arm.firmware.facts import Variant
from mfn_compile.frozen import Frozen


class LayerTime(Frozen):
    """One kernel of a layer, all of its calls in an inference; a layer may have several."""

    layer: str = Field(description="of the network")
    kernel: str = Field(description="symbol, without mfn_ and the variant")
    microseconds: float = Field(ge=0, description="median")
    share: float = Field(ge=0, le=1, description="of the sum of all")


class BoardRun(Frozen):
    """A library checked and timed on a board."""

    title: str = Field(description="what the board calls itself, or its core")
    core: str | None = Field(
        default=None, description="name of the core's model, where the virtual board has one"
    )
    architecture: str = Field(description="as uname has it")
    kernel: str = Field(description="release of the operating system's kernel")
    boards: tuple[str, ...] = Field(min_length=1, description="those that shared the work")
    variant: Variant = Field(description="the one that mfn_embed takes there")
    threads: int = 1
    affinity: int | None = Field(description="core that it ran on, None where none can be chosen")
    warm_up: int = Field(ge=0, description="inferences before each round that were not counted")
    repeats: int = Field(gt=0, description="timed inferences, all rounds together")
    p50_ms: float = Field(gt=0)
    p90_ms: float = Field(gt=0)
    p99_ms: float = Field(gt=0)
    governor: str | None = Field(description="of the core's frequency, where it is exposed")
    frequency_mhz: tuple[float, ...] = Field(description="before and after, where exposed")
    temperature_c: tuple[float, ...] = Field(description="likewise, of the hottest zone")
    vectors: int = Field(gt=0, description="golden vectors whose every bit was right")
    variants: tuple[Variant, ...] = Field(description="those that were checked on every vector")
    layers: tuple[LayerTime, ...] = Field(description="in order; empty where none can be timed")
    resumed: int = Field(default=0, ge=0, description="jobs that an earlier try had finished")
    warnings: tuple[str, ...] = ()
