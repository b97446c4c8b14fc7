"""Budgets: what a run may lose and how long an image may take."""

from __future__ import annotations

from mfn_compile.errors import AccuracyBudgetError, LatencyBudgetError, MfnError
from mfn_compile.results import Evaluation, Gate, Gates, Latency


def judge(
    evaluation: Evaluation | None, latency: Latency | None, max_drop: float, max_latency_ms: float
) -> Gates:
    """Hold drift and latency against their budgets; what was not measured has no gate."""
    drop = speed = None
    if evaluation is not None:
        drop = Gate(
            passed=evaluation.drop <= max_drop,
            limit=max_drop,
            value=evaluation.drop,
            text=f"INT8 loses {evaluation.drop:.3f} points of accuracy, "
            f"the budget is {max_drop:.3f}",
        )
    if latency is not None:
        speed = Gate(
            passed=latency.p50_ms <= max_latency_ms,
            limit=max_latency_ms,
            value=latency.p50_ms,
            text=f"one image takes {latency.p50_ms:.2f} ms ({latency.kind}, median), "
            f"the budget is {max_latency_ms:.2f} ms",
        )
    return Gates(drop=drop, latency=speed)


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
            hint="Try more --threads, a smaller input, or allow more with --max-latency-ms",
        )
    return None
