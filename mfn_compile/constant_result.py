"""What is told about channels that no image can change."""

from __future__ import annotations

from pydantic import Field

from mfn_compile.frozen import Frozen


class ConstantChannels(Frozen):
    """What no image can change, and was left out of the code."""

    dropped: int = Field(description="channels of all tensors together")
    channels: int = Field(description="as many has the network")
    multiply_adds: int = Field(description="of the code, padding left out")
    whole_multiply_adds: int = Field(description="of the network")
