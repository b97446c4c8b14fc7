"""What the texts of a firmware bundle are rendered from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator

from mfn_compile.arm.firmware.stack import StackRow
from mfn_compile.frozen import Frozen
from mfn_compile.target import FEATURES, Feature

Variant = Feature
VARIANTS: tuple[Variant, ...] = FEATURES  # the fastest last
INSTRUCTIONS: Mapping[Variant, str] = {  # what a CPU needs
    "neon": "vector",
    "dotprod": "dot product",
    "i8mm": "int8 matrix product",
}
ALIGNMENT = 64  # of the workspace, bytes


class SizeRow(Frozen):
    """Bytes of one part of the library."""

    name: str
    text: int = Field(ge=0, description="machine code")
    rodata: int = Field(ge=0, description="constants: weights and tables")


class FirmwareFacts(Frozen):
    """Everything that the header, the README and the build files say."""

    model: str = Field(description="name of the checkpoint")
    checkpoint_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    target: str
    description: str = Field(description="the target's, one sentence")
    version: str = Field(pattern=r"^\d[\w.+]*$", description="of mfn-compile")
    demo: bool = Field(default=False, description="the demo model on rendered faces")
    height: int = Field(gt=0)
    width: int = Field(gt=0)
    embedding_dim: int = Field(gt=0)
    workspace_bytes: int = Field(gt=0)
    parallel_workspace_bytes: int = Field(gt=0, description="of mfn_embed_parallel")
    parallel_tasks: int = Field(gt=0, description="of one parallel_for, at most")
    color: Literal["RGB", "BGR"] = Field(description="channel order of the network's own input")
    mean: tuple[float, float, float] = Field(description="in the order of `color`")
    std: tuple[float, float, float]
    normalized: bool = Field(description="the embedding has length 1")
    quantized_input: bool = Field(
        description="the network's own input is int8, so that mfn_embed_quantized exists"
    )
    variants: tuple[Variant, ...] = Field(min_length=1)
    shared: bool = Field(description="the bundle has lib/libmfn.so")
    sizes: tuple[SizeRow, ...] = ()
    stack: tuple[StackRow, ...] = ()

    @field_validator("variants")
    @classmethod
    def _each_once(cls, variants: tuple[Variant, ...]) -> tuple[Variant, ...]:
        if len(set(variants)) != len(variants):
            raise ValueError("a variant is there twice")
        return variants
