"""Budgets: what is measured passes or not, what is modelled is likely, uncertain or unlikely."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfn_compile import gates
from mfn_compile.device_result import DeviceResult, Milliseconds
from mfn_compile.errors import ExitCode

TIMES = st.floats(0.01, 1e4)


def timed(**times: float) -> DeviceResult:
    return DeviceResult(
        device="virtual:raspberry-pi-4",
        kind="modelled" if "low" in times else "measured",
        title="Raspberry Pi 4, Cortex-A72 1.8 GHz",
        core="cortex-a72",
        variant="neon",
        macs=1,
        milliseconds=Milliseconds(**times),
        kernels=(),
    )


def judge(device: DeviceResult | None, limit: float = 18.0, *, strict: bool = False) -> Any:
    return gates.judge(None, None, device, max_drop=0.2, max_latency_ms=limit, strict=strict)


@pytest.mark.parametrize(
    ("low", "high", "chance", "passed", "strictly"),
    [
        (10.0, 18.0, "likely", True, True),
        (14.2, 20.8, "uncertain", True, False),
        (18.0, 30.0, "uncertain", True, False),
        (18.1, 30.0, "unlikely", False, False),
    ],
)
def test_a_modelled_time(
    low: float, high: float, chance: str, passed: bool, strictly: bool
) -> None:
    device = timed(value=17.2, low=low, high=high)
    found = judge(device).latency
    assert (found.chance, found.passed) == (chance, passed)
    assert judge(device, strict=True).latency.passed == strictly
    assert chance in found.text
    assert "modelled for Raspberry Pi 4" in found.text


def test_only_unlikely_leaves_with_5_and_strict_uncertain_too() -> None:
    uncertain, unlikely = (timed(value=20, low=low, high=24) for low in (17.0, 19.0))
    assert gates.missed(judge(uncertain)) is None
    strict = gates.missed(judge(uncertain, strict=True))
    lost = gates.missed(judge(unlikely))
    assert strict is not None
    assert lost is not None
    assert strict.exit_code == lost.exit_code == ExitCode.LATENCY_BUDGET
    assert "--strict" in strict.hint
    assert "--strict" not in lost.hint


def test_a_measured_time_has_no_chance() -> None:
    found = judge(timed(value=17.9), strict=True).latency
    assert (found.passed, found.chance) == (True, None)
    assert "measured" in found.text
    assert not judge(timed(value=18.1)).latency.passed


def test_cycles_without_a_time_have_no_gate() -> None:
    device = timed(value=1.0).model_copy(update={"milliseconds": None, "cycles": 4e7})
    assert judge(device).latency is None
    assert judge(None).latency is None


@given(TIMES, st.floats(1, 3), TIMES)
def test_a_larger_budget_is_never_less_likely(value: float, margin: float, limit: float) -> None:
    order = ["unlikely", "uncertain", "likely"]
    device = timed(value=value, low=value / margin, high=value * margin)
    here, above = (judge(device, x).latency.chance for x in (limit, limit * 1.5))
    assert order.index(here) <= order.index(above)
