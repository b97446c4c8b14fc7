"""How this package talks to OpenVINO: one place for the core, the settings and the errors."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

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


def compile_latency(model: Path, device: str, threads: int) -> ov.CompiledModel:
    """Compile for the shortest time of one image on `threads` threads.

    Raises:
        DeviceError: the device is absent or refuses the model.
    """
    hints = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads}
    return _compile(model, device, hints)


def compile_throughput(model: Path, device: str, cores: int) -> ov.CompiledModel:
    """Compile for many images at once, one stream a core.

    Raises:
        DeviceError: the device is absent or refuses the model.
    """
    hints = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "NUM_STREAMS": cores,
        "INFERENCE_NUM_THREADS": cores,
    }
    return _compile(model, device, hints)


def _compile(model: Path, device: str, hints: dict[str, Any]) -> ov.CompiledModel:
    try:
        return core().compile_model(str(model), device, {**FLOAT32, **hints})
    except RuntimeError as error:
        raise DeviceError(
            f"OpenVINO cannot compile the model for device {device!r}",
            where=model.name,
            why=str(error).strip().splitlines()[-1],
            hint=f"Devices here: {', '.join(core().available_devices) or 'none'}",
        ) from error


def device_name(device: str) -> str:
    """Full name of a device as OpenVINO gives it."""
    return str(core().get_property(device, "FULL_DEVICE_NAME"))
