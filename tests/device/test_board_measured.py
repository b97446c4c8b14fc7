"""A measurement as a device's result: kernels grouped, rates by the clock, traffic by the model."""

from __future__ import annotations

from typing import Any

import pytest

from mfn_compile.device.measured import MODELLED, TRAFFIC, of_run, with_traffic
from mfn_compile.device.real.run import BoardRun, LayerTime

GEMM, DEPTHWISE = "gemm_784x128x64_i8", "depthwise_28x28x128_k3x3_s1x1_p1_1_1_1_i8"


def run(**more: Any) -> BoardRun:
    calls = ((GEMM, "a", 300.0), (DEPTHWISE, "b", 150.0), (GEMM, "c", 500.0), ("copy", "d", 50.0))
    return BoardRun.model_validate(
        {
            "title": "Raspberry Pi 4 Model B",
            "core": "cortex-a72",
            "architecture": "aarch64",
            "kernel": "6.6",
            "boards": ("pi",),
            "variant": "neon",
            "affinity": 3,
            "warm_up": 5,
            "repeats": 300,
            "p50_ms": 1.0,
            "p90_ms": 1.1,
            "p99_ms": 1.3,
            "governor": "performance",
            "frequency_mhz": (1800.0, 1800.0),
            "temperature_c": (50.0, 55.0),
            "vectors": 6,
            "variants": ("neon",),
            "layers": tuple(
                LayerTime(layer=layer, kernel=kernel, microseconds=time, share=time / 1000)
                for kernel, layer, time in calls
            ),
            **more,
        }
    )


def test_calls_of_one_kernel_are_one_row_and_rates_follow_the_clock() -> None:
    found = of_run(run(), "rpc://pi:9190/pi4")
    first = found.kernels[0]
    assert [row.kernel for row in found.kernels] == [GEMM, DEPTHWISE, "copy"]
    assert (first.layers, first.calls, first.microseconds) == (2, 2, 800.0)
    assert first.share == pytest.approx(0.8)
    assert first.macs == 2 * 784 * 128 * 64
    assert first.macs_per_cycle == pytest.approx(first.macs / (800 * 1800))
    assert first.of_peak == pytest.approx(first.macs_per_cycle / 8)
    assert found.kernels[2].macs is None
    assert found.cycles == pytest.approx(1.8e6)
    assert found.title == "Raspberry Pi 4 Model B, 1.8 GHz"
    assert found.says() == (
        "1.00 ms (measured on Raspberry Pi 4 Model B, 1.8 GHz, 1 thread, median)"
    )


def test_without_a_clock_or_a_known_core_there_are_no_rates() -> None:
    found = of_run(run(frequency_mhz=(), core=None), "local")
    assert found.cycles is found.clock_ghz is found.peaks is None
    assert all(row.macs_per_cycle is None and row.of_peak is None for row in found.kernels)
    assert found.kernels[0].share == pytest.approx(0.8)


def test_traffic_comes_from_the_model_and_times_stay_measured() -> None:
    measured = of_run(run(), "local")
    row = measured.kernels[0].model_copy(
        update={
            "instructions": 7,
            "l1_misses": 6,
            "l2_misses": 5,
            "bytes_moved": 384,
            "memory_bytes": 320,
            "memory_cycles": 1.5,
            "bound": "compute",
            "code_bytes": 692,
            "cycles": 1.0,
            "share": 0.1,
        }
    )
    both = with_traffic(measured, measured.model_copy(update={"kernels": (row,)}))
    first, second = both.kernels[:2]
    assert [getattr(first, name) for name in MODELLED] == [getattr(row, name) for name in MODELLED]
    assert (first.cycles, first.share) == (measured.kernels[0].cycles, measured.kernels[0].share)
    assert second == measured.kernels[1]
    assert both.warnings == (TRAFFIC,)
