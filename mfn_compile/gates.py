"""Budgets: what a run may lose and how long an image may take."""

from __future__ import annotations

from mfn_compile.device_result import DeviceResult
from mfn_compile.errors import AccuracyBudgetError, LatencyBudgetError, MfnError
from mfn_compile.results import Evaluation, Gate, Gates, Latency


def judge(
    evaluation: Evaluation | None,
    latency: Latency | None,
    device: DeviceResult | None,
    *,
    max_drop: float,
    max_latency_ms: float,
    strict: bool,
) -> Gates:
    """Hold drift and latency against their budgets; what was not measured has no gate.

    Args:
        strict: whether a modelled time whose interval holds the budget misses it.
    """
    speed = None
    if latency is not None:
        speed = _measured(latency.p50_ms, "median", max_latency_ms)
    elif device is not None and device.milliseconds is not None:
        speed = _on_device(device, max_latency_ms, strict)
    return Gates(drop=_drift(evaluation, max_drop), latency=speed)


def _drift(evaluation: Evaluation | None, limit: float) -> Gate | None:
    if evaluation is None:
        return None
    text = f"INT8 loses {evaluation.drop:.3f} points of accuracy, the budget is {limit:.3f}"
    passed = evaluation.drop <= limit
    return Gate(passed=passed, limit=limit, value=evaluation.drop, text=text)


def _measured(value: float, how: str, limit: float) -> Gate:
    text = f"one image takes {value:.2f} ms (measured, {how}), the budget is {limit:.2f} ms"
    return Gate(passed=value <= limit, limit=limit, value=value, text=text)


def _on_device(device: DeviceResult, limit: float, strict: bool) -> Gate:
    assert device.milliseconds is not None
    value = device.milliseconds.value
    chance = device.chance(limit)
    if chance is None:
        return _measured(value, f"median, on {device.title}", limit)
    return Gate(
        passed=chance == "likely" or (chance == "uncertain" and not strict),
        limit=limit,
        value=value,
        text=f"one image takes {device.says()}; that it keeps to {limit:.2f} ms is {chance}",
        chance=chance,
    )


def missed(gates: Gates) -> MfnError | None:
    """The first missed budget as an error, accuracy before latency; None when all are met."""
    lost = [g for g in (gates.drop, gates.latency) if g is not None and not g.passed]
    why = "; ".join(gate.text for gate in lost)
    if gates.drop in lost:
        return AccuracyBudgetError(
            "The accuracy budget is missed",
            why=why,
            hint="Try --qat or --recipe accurate, look at the layers with the lowest SQNR in the "
            "report, or allow more with --max-drop",
        )
    if lost:
        return LatencyBudgetError(
            "The latency budget is missed",
            why=why,
            hint=_slower(gates.latency),
        )
    return None


def _slower(gate: Gate | None) -> str:
    if gate is not None and gate.chance == "uncertain":
        return "Measure on the board itself, leave --strict out, or allow more: --max-latency-ms"
    if gate is not None and gate.chance is not None:
        return "Choose a faster board, or allow more with --max-latency-ms"
    return "Try more --threads, a smaller input, or allow more with --max-latency-ms"
