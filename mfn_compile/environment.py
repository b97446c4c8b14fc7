"""What machine and which packages this runs on."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

from mfn_compile.results import Environment
from mfn_compile.store import tool_version

PACKAGES = ("torch", "torchao", "nncf", "openvino", "onnx", "onnxsim", "onnxruntime", "numpy",
            "apache-tvm", "apache-tvm-ffi", "capstone")  # fmt: skip
# What decides the speed and the saturation of INT8 kernels, in Linux flag names.
RELEVANT_FLAGS = (
    "sse4_1",
    "avx",
    "avx2",
    "fma",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "asimd",
    "asimddp",
    "asimdhp",
    "i8mm",
    "sve",
    "bf16",
)


@cache
def _cpuinfo() -> dict[str, str]:
    """First processor's fields of /proc/cpuinfo; empty where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}


def cpu_flags() -> frozenset[str]:
    """CPU feature flags as Linux names them (x86 `flags`, AArch64 `Features`)."""
    info = _cpuinfo()
    return frozenset((info.get("flags") or info.get("Features") or "").split())


def relevant_flags() -> tuple[str, ...]:
    """The flags that matter for INT8, in a fixed order."""
    present = cpu_flags()
    return tuple(flag for flag in RELEVANT_FLAGS if flag in present)


def cpu_name() -> str:
    """The CPU's marketing name, or its architecture."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe() -> Environment:
    """Environment section of a report."""
    return Environment(
        machine=f"{platform.system()} {platform.machine()}",
        cpu=cpu_name(),
        cores=cores(),
        python=platform.python_version(),
        packages={name: tool_version(name) for name in PACKAGES},
    )
