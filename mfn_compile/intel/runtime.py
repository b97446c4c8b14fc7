"""How this package talks to OpenVINO: one place for the core, the settings and the errors."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import openvino as ov

from mfn_compile.errors import DeviceError, UsageError

# The float baseline and the float islands stay float32 on CPUs that would pick bfloat16.
FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}
ISA_VARIABLE = "ONEDNN_MAX_CPU_ISA"  # oneDNN reads it once, when the first kernel is made
_isa_in_use: list[str | None] = []


def limit_isa(isa: str | None) -> None:
    """Let OpenVINO's CPU kernels use at most `isa` (oneDNN's names), None for all the CPU has.

    Raises:
        UsageError: this process already runs kernels of another limit.
    """
    if not _isa_in_use:
        if isa:
            os.environ[ISA_VARIABLE] = isa
        _isa_in_use.append(isa)
    if _isa_in_use[0] != isa:
        raise UsageError(
            f"This process already uses OpenVINO limited to {_isa_in_use[0] or 'nothing'}",
            why=f"The target wants {isa or 'no limit'}, and the limit is set once a process",
            hint="Compile for this target in a process of its own",
        )


@cache
def core() -> ov.Core:
    """The process's OpenVINO core."""
    return ov.Core()


def latency_properties(threads: int) -> dict[str, str]:
    """The default for the shortest time of one image on `threads` threads."""
    return {
        **FLOAT32,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
    }


def throughput_properties(properties: Mapping[str, str], cores: int) -> dict[str, str]:
    """`properties` for many images at once, one stream a core."""
    many = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "NUM_STREAMS": str(cores),
        "INFERENCE_NUM_THREADS": str(cores),
    }
    return {**FLOAT32, **properties, **many}


def compile_model(
    model: Path | ov.Model, device: str, properties: Mapping[str, str]
) -> ov.CompiledModel:
    """Compile an IR, or a network in memory, with exactly these properties.

    Raises:
        DeviceError: the device is absent, or refuses the model or a property.
    """
    source = model if isinstance(model, ov.Model) else str(model)
    name = model.get_friendly_name() if isinstance(model, ov.Model) else model.name
    with _told(name, device):
        return core().compile_model(source, device, dict(properties))


def clone(blob: bytes, device: str, properties: Mapping[str, str]) -> ov.CompiledModel:
    """Another instance of an exported model: its own memory and kernels, a quarter of the time.

    Raises:
        DeviceError: the device cannot import it.
    """
    with _told("compiled model", device):
        return core().import_model(io.BytesIO(blob), device, dict(properties))


@contextmanager
def _told(name: str, device: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise DeviceError(
            f"OpenVINO cannot compile the model for device {device!r}",
            where=name,
            why=str(error).strip().splitlines()[-1],
            hint=f"Devices here: {', '.join(core().available_devices) or 'none'}",
        ) from error


def supported(device: str) -> frozenset[str]:
    """Properties that can be set on a device; none where it is absent."""
    try:
        found = core().get_property(device, "SUPPORTED_PROPERTIES")
    except RuntimeError:
        return frozenset()
    return frozenset(str(name) for name, access in found.items() if str(access) == "RW")


def capabilities(device: str) -> frozenset[str]:
    """Types that a device computes in, as OpenVINO names them: FP32, BF16, INT8."""
    return frozenset(core().get_property(device, "OPTIMIZATION_CAPABILITIES"))


def device_name(device: str) -> str:
    """Full name of a device as OpenVINO gives it."""
    return str(core().get_property(device, "FULL_DEVICE_NAME"))
