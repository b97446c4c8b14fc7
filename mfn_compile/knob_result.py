"""What the search over OpenVINO's settings found: part of a report, and of a bundle's manifest."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mfn_compile.frozen import Frozen

InputForm = Literal[
    "float32 [1, 3, height, width]",
    "float32 [1, height, width, 3]",
    "uint8 [1, height, width, 3], RGB",
]
PLANES: InputForm = "float32 [1, 3, height, width]"
ROWS: InputForm = "float32 [1, height, width, 3]"
PIXELS: InputForm = "uint8 [1, height, width, 3], RGB"
Outcome = Literal[
    "kept",
    "within the noise",
    "slower",
    "less faithful",
    "slower inside OpenVINO",
    "other bits in the evaluation",
    "for information",
    "refused by OpenVINO",
]


class Ratio(Frozen):
    """Time of one image before, divided by the time after: above 1 is faster."""

    value: float = Field(description="median over the rounds")
    low: float = Field(description="exact 95 % interval of the median, of the sign test")
    high: float


class KnobTrial(Frozen):
    """One candidate, measured in turns with what had been kept before it."""

    name: str
    change: dict[str, str] = Field(description="what it sets")
    ratio: Ratio | None = Field(default=None, description="from uint8 pixels to the embedding")
    inference: float | None = Field(
        default=None, description="the same ratio of the time inside of OpenVINO alone"
    )
    again: Ratio | None = Field(
        default=None, description="measured anew on instances of its own, where the first was good"
    )
    rounds: int = 0
    same_bits: bool | None = Field(
        default=None,
        description="whether all embeddings are those of the best before it, to the bit",
    )
    cosine: float | None = Field(
        default=None, description="mean cosine of its embeddings to the float network's"
    )
    outcome: Outcome


class KnobSearch(Frozen):
    """Every candidate, what was kept of them, and how sure that is."""

    noise: float = Field(
        description="the larger end of the interval of the default against itself, as a ratio; "
        "what is kept has the whole of both of its intervals above it"
    )
    control: Ratio = Field(description="the default against itself, measured as a candidate is")
    images: int = Field(description="crops whose embeddings were compared")
    cosine: float = Field(description="mean cosine of the default's embeddings to the float ones")
    trials: tuple[KnobTrial, ...]
    untried: tuple[str, ...] = Field(default=(), description="left out when the time was up")
    gain: Ratio | None = Field(
        default=None, description="all that was kept together against the default, measured last"
    )
    gain_inference: float | None = None

    @property
    def kept(self) -> tuple[KnobTrial, ...]:
        """The candidates that the artifact has."""
        return tuple(trial for trial in self.trials if trial.outcome == "kept")


class OpenVinoUse(Frozen):
    """How an IR is to be run to be what was measured."""

    properties: dict[str, str] = Field(
        description="for core.compile_model(xml, device, properties)"
    )
    input: InputForm = Field(default=PLANES, description="type and layout")
    float_layers: tuple[str, ...] = Field(
        default=(), description="convolutions that run in float32 because that is faster here"
    )

    @property
    def normalizes(self) -> bool:
        """Whether the artifact takes pixel values as they are."""
        return self.input == PIXELS

    def input_of(self, height: int, width: int) -> str:
        """The input's type and shape in numbers."""
        return self.input.replace("height", str(height)).replace("width", str(width))
