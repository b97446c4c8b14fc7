"""Targets: one TOML a device, in targets/ or the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from mfn_compile.boards import Board
from mfn_compile.frozen import Frozen
from mfn_compile.hashing import value_sha256
from mfn_compile.resources import data_dir
from mfn_compile.tomlfile import find_named, load_model

OverflowFix = Literal["disable", "first_layer_only", "enable"]
GridChoice = Literal["exact", "free"]


class Quantization(Frozen):
    """What the device's arithmetic demands of the quantizer."""

    overflow_fix: Literal["auto", "disable", "first_layer_only", "enable"] = Field(
        description="half-range weights where u8 x s8 pairs saturate in 16 bits; "
        "auto: enable on a CPU without VNNI, else disable"
    )
    grid: GridChoice = Field(
        default="free",
        description="exact: scales of few bits and biases that are multiples of them, so that "
        "every executor of the QDQ file computes the same integers; free: any float32 scales",
    )


class Runtime(Frozen):
    """How the artifact is run on the device."""

    device: str = Field(description="the backend's name of the device")
    threads: int = Field(ge=1, le=1024)
    isa: str | None = Field(
        default=None,
        pattern=r"^[A-Z0-9_]+$",
        description="most capable instruction set that the device has, in the runtime's terms; "
        "a more capable host is held to it, so that what is measured is the target's arithmetic",
    )


AARCH64 = ("aarch64", "arm64")
Feature = Literal["neon", "dotprod", "i8mm"]
FEATURES: tuple[Feature, ...] = ("neon", "dotprod", "i8mm")  # each needs those before it
# Cores of the Armv8.0-A and Armv8.1-A architectures, which have no dot product instructions.
NO_DOTPROD = frozenset(f"cortex-{core}" for core in ("a34", "a35", "a53", "a57", "a72", "a73"))


# Of those that have them, the cores of architectures before Armv8.6-A, which has matrix products.
NO_I8MM = NO_DOTPROD | {
    *(f"cortex-{core}" for core in ("a55", "a65", "a65ae", "a75", "a76", "a76ae", "a77", "a78")),
    *("cortex-a78ae", "cortex-a78c", "cortex-x1", "cortex-x1c", "neoverse-e1", "neoverse-n1"),
}


ELF_SYSTEMS = frozenset({"elf", "freebsd", "linux", "none"})


class Variant(Frozen):
    """One instruction set that code is generated for."""

    name: Feature = Field(description="which kernels: plain Armv8.0, sdot, or smmla")
    cpu: str = Field(
        pattern=r"^[a-z0-9][a-z0-9.-]*$", description="core to schedule for, LLVM's name"
    )
    features: tuple[Feature, ...] = Field(min_length=1, description="what the code may use")

    @model_validator(mode="after")
    def _the_core_has_it(self) -> Variant:
        needed = FEATURES[: FEATURES.index(self.name) + 1]
        if set(needed) - set(self.features):
            raise ValueError(f"variant {self.name!r} needs the features {' and '.join(needed)}")
        for extra in [name for name in FEATURES[len(needed) :] if name in self.features]:
            raise ValueError(f"the {self.name} variant must run without {extra}; name it {extra}")
        if self.name == "neon" and self.cpu not in NO_DOTPROD | {"generic"}:
            raise ValueError(
                f"code for {self.cpu} need not run on every Armv8.0 core; schedule the neon "
                f"variant for {', '.join(sorted(NO_DOTPROD))} or generic"
            )
        if "dotprod" in self.features and self.cpu in NO_DOTPROD:
            raise ValueError(f"{self.cpu} has no dotprod")
        if "i8mm" in self.features and self.cpu in NO_I8MM:
            raise ValueError(f"{self.cpu} has no i8mm")
        return self


class Code(Frozen):
    """What machine code is generated for."""

    triple: str = Field(
        pattern=r"^[a-z0-9_]+(-[a-z0-9_]+){1,3}$", description="LLVM's target triple"
    )
    variants: tuple[Variant, ...] = Field(
        min_length=1, max_length=3, description="side by side in one library"
    )

    @property
    def bare_metal(self) -> bool:
        """No operating system that tells the CPU's features."""
        return "linux" not in self.triple

    @model_validator(mode="after")
    def _the_triple_has_it(self) -> Code:
        architecture = self.triple.partition("-")[0]
        names = [variant.name for variant in self.variants]
        if architecture not in AARCH64:
            promised = sorted({f for variant in self.variants for f in variant.features})
            raise ValueError(
                f"{architecture} cannot have {', '.join(promised)}: these are features of AArch64"
            )
        if len(set(names)) < len(names):
            raise ValueError(f"two variants are named {names[0]!r}")
        if not ELF_SYSTEMS & set(self.triple.split("-")):
            raise ValueError(
                f"{self.triple!r} is no system with ELF objects; the triple must have one of "
                f"{', '.join(sorted(ELF_SYSTEMS))}"
            )
        if self.bare_metal and len(names) > 1:
            raise ValueError("bare metal cannot choose at run time: one variant only")
        return self


class Budget(Frozen):
    """What the artifact may cost."""

    latency_ms: float = Field(gt=0)


class Target(Frozen):
    """One device and what is demanded of an artifact for it."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    description: str
    backend: Literal["openvino", "tvm"]
    quantization: Quantization
    runtime: Runtime
    budget: Budget
    code: Code | None = Field(default=None, description="for the tvm backend")
    board: Board | None = Field(
        default=None, description="one board rather than a core; for --device virtual:NAME"
    )

    @model_validator(mode="after")
    def _code_is_for_tvm(self) -> Target:
        if (self.backend == "tvm") != (self.code is not None):
            raise ValueError("the tvm backend needs a [code] section, and no other takes one")
        if self.board is not None and self.code is None:
            raise ValueError("a [board] belongs to the tvm backend")
        return self

    def to_json(self) -> str:
        """The target as a document for the bundle."""
        return self.model_dump_json(indent=2) + "\n"

    def digest(self) -> str:
        """SHA-256 of the target's content."""
        return value_sha256(self.model_dump(mode="json"))

    def overflow_fix(self, cpu_flags: frozenset[str]) -> OverflowFix:
        """The overflow fix to quantize with, `auto` resolved by the CPU's VNNI."""
        choice = self.quantization.overflow_fix
        if choice != "auto":
            return choice
        return "disable" if has_vnni(cpu_flags) else "enable"


def has_vnni(cpu_flags: frozenset[str]) -> bool:
    """Whether sums of u8 x s8 products go straight to 32 bits (Linux flag names)."""
    return bool(cpu_flags & {"avx512_vnni", "avx_vnni"})


def load_target(name_or_path: str | Path) -> Target:
    """A shipped target by name, or the user's own TOML by path.

    Raises:
        BadInputError: unknown name, unreadable file, wrong key or value.
    """
    return load_model(find_named(name_or_path, data_dir("targets"), "target"), Target, "target")


def list_targets() -> tuple[Target, ...]:
    """Every shipped target, by name."""
    paths = sorted(data_dir("targets").glob("*.toml"), key=lambda path: path.stem)
    return tuple(load_model(path, Target, "target") for path in paths)
