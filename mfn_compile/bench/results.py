"""What a benchmark found: frozen, and the JSON that is written."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mfn_compile.device_result import Milliseconds
from mfn_compile.frozen import Frozen

SCHEMA: Literal["mfn-compile/bench/1"] = "mfn-compile/bench/1"
GATE = 0.99  # an embedding whose cosine to the float network's is below gets no number
TIE = 0.15  # cycles that differ by less are a tie: no ranking of engines was checked on hardware
OURS = "mfn-compile"


class Drift(Frozen):
    """What a model does to LFW, against the float network on the same crops."""

    accuracy: float = Field(description="percent, threshold chosen by cross-validation")
    change: float = Field(description="points, against the float network")
    kept_change: float = Field(description="points, with the float network's thresholds")
    cosine: float = Field(description="mean over the images of the pairs")


class Model(Frozen):
    """An engine with its model of the network."""

    engine: str
    precision: str
    version: str
    quantizer: str
    model_bytes: int | None = Field(default=None, ge=0)
    runtime_bytes: int | None = Field(default=None, ge=0)
    memory_bytes: int | None = Field(default=None, ge=0, description="growth of the process")
    cosine: float | None = Field(default=None, description="mean of held-out crops, on this host")
    lfw: Drift | None = None
    failure: str = Field(default="", description="why there is no such model, or no number of it")


class Count(Frozen):
    """A model on a virtual device: numbers, or the reason why there are none."""

    engine: str
    precision: str
    device: str
    cycles: float | None = Field(default=None, gt=0, description="modelled")
    instructions: int | None = Field(default=None, gt=0)
    l1_misses: int | None = Field(default=None, ge=0)
    l2_misses: int | None = Field(default=None, ge=0)
    milliseconds: Milliseconds | None = None
    cosine: float | None = Field(default=None, description="of the counted crop, on the device")
    reason: str = ""


class Native(Frozen):
    """A model on this host, in one run with all others."""

    engine: str
    precision: str
    milliseconds: float | None = Field(default=None, gt=0, description="median of the rounds")
    ratio: float | None = Field(default=None, gt=0, description="of its time to ours, median")
    low: float | None = Field(default=None, gt=0, description="a quarter of the rounds lie below")
    high: float | None = Field(default=None, gt=0, description="a quarter of the rounds lie above")
    reason: str = ""


class Bench(Frozen):
    """All of it."""

    schema_: Literal["mfn-compile/bench/1"] = Field(default=SCHEMA, alias="schema")
    network: str
    crops: str = Field(description="where calibration and judged crops come from")
    command: str
    host: str = Field(description="this machine's processor")
    models: tuple[Model, ...]
    counts: tuple[Count, ...]
    native: tuple[Native, ...]
