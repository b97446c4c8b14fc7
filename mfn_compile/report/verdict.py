"""The first thing a reader sees: what was compiled, what it cost, and whether that is enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mfn_compile.device_result import DeviceResult
from mfn_compile.report import format as fmt
from mfn_compile.results import Evaluation, Gate, Latency, Result

DEMO = "demo model on rendered faces"
MODELLED = "The latency is a model's estimate; nothing ran on the board."
NO_TIME = "Modelled cycles are no time: they leave out the waiting for memory."


@dataclass(frozen=True)
class Verdict:
    """Outcome of a run in words.

    Attributes:
        passed: None when there was no budget to check, or a modelled time may keep to it or not.
        headline: which budgets were met.
        sentence: what was compiled, for what, the accuracy and the time.
        caveats: what a reader must know before quoting the numbers.
    """

    passed: bool | None
    headline: str
    sentence: str
    caveats: tuple[str, ...]


def verdict(result: Result) -> Verdict:
    """Judge a result by its gates."""
    gates = [g for g in (result.gates.drop, result.gates.latency) if g is not None]
    return Verdict(
        passed=_passed(gates),
        headline=_headline(result.gates.drop, result.gates.latency),
        sentence=_sentence(result),
        caveats=_caveats(result),
    )


def is_demo(result: Result) -> bool:
    """True for the shipped demo model or an evaluation on rendered images."""
    return result.checkpoint.demo or bool(result.evaluation and result.evaluation.rendered)


def _passed(gates: list[Gate]) -> bool | None:
    if not all(gate.passed for gate in gates):
        return False
    return None if not gates or any(_open(gate) for gate in gates) else True


def _open(gate: Gate | None) -> bool:
    return gate is not None and gate.passed and gate.chance == "uncertain"


def _headline(drop: Gate | None, latency: Gate | None) -> str:
    named = (("accuracy", drop), ("latency", latency))
    missed = [name for name, gate in named if gate is not None and not gate.passed]
    met = [name for name, gate in named if gate is not None and gate.passed and not _open(gate)]
    unchecked = [name for name, gate in named if gate is None]
    if len(unchecked) == 2:
        return "No budget was checked"
    parts = []
    if missed:
        parts.append(f"{_budgets(missed)} missed")
    if met:
        parts.append(f"{_budgets(met)} met")
    if _open(latency):
        parts.append("latency budget uncertain")
    if unchecked:
        parts.append(f"{unchecked[0]} not checked")
    text = ", ".join(parts)
    return text[0].upper() + text[1:]


def _budgets(names: list[str]) -> str:
    return "accuracy and latency budgets" if len(names) == 2 else f"{names[0]} budget"


def _sentence(result: Result) -> str:
    name = (
        f"{result.checkpoint.name} ({DEMO})" if result.checkpoint.demo else result.checkpoint.name
    )
    parts = [f"{name} was compiled to INT8 for {result.target}"]
    if result.evaluation is not None:
        parts.append(_accuracy(result.evaluation, result.gates.drop))
    else:
        parts.append("its accuracy was not evaluated")
    if result.latency is not None:
        parts.append(_time(result.latency, result.gates.latency))
    elif result.device is not None:
        parts.append(_on_device(result.device, result.gates.latency))
    else:
        parts.append("its latency was not taken")
    return "; ".join(parts) + "."


def _accuracy(evaluation: Evaluation, gate: Gate | None) -> str:
    before, after = fmt.percent(evaluation.fp32.accuracy), fmt.percent(evaluation.int8.accuracy)
    text = f"accuracy on {evaluation.dataset} goes from {before} to {after}, "
    text += f"a drop of {fmt.drop(evaluation.drop)}"
    return text + (f" (budget {fmt.fixed(gate.limit, 3)})" if gate else "")


def _time(latency: Latency, gate: Gate | None) -> str:
    text = f"one image takes {fmt.milliseconds(latency.p50_ms)} ({latency.kind}, median, "
    text += fmt.plural(latency.threads, "thread")
    return text + (f"; budget {fmt.milliseconds(gate.limit)})" if gate else ")")


def _on_device(device: DeviceResult, gate: Gate | None) -> str:
    if device.milliseconds is None:
        return f"one image costs {device.says()}"
    text = f"one image takes {device.says()}"
    if gate is None:
        return text
    budget = f"{text[:-1]}; budget {fmt.milliseconds(gate.limit)}"
    return f"{budget}, that it keeps to it is {gate.chance})" if gate.chance else f"{budget})"


def _caveats(result: Result) -> tuple[str, ...]:
    found = []
    evaluation = result.evaluation
    if is_demo(result):
        found.append(
            f"This is the {DEMO}: it shows that the tool works, and says nothing about your model."
            if result.checkpoint.demo
            else "The evaluation images are rendered faces, not photographs."
        )
    if result.device is not None and result.device.kind == "modelled":
        found.append(MODELLED if result.device.milliseconds else NO_TIME)
    shared = result.quantization.calibration.shared_identities
    if shared and evaluation is not None:
        found.append(
            f"{fmt.plural(shared, 'calibration image')} of "
            f"{fmt.count(result.quantization.calibration.images)} "
            f"{'shows a person' if shared == 1 else 'show people'} of the evaluation pairs "
            "(other images of them; no image is shared)."
        )
    if result.backend is not None and result.backend.precision.float_layers:
        number = len(result.backend.precision.float_layers)
        text = fmt.plural(number, "convolution does", "convolutions do")
        found.append(f"{text} not run in INT8: see Precision.")
    return tuple(found)


@dataclass(frozen=True)
class Tile:
    """One number at the top of a report; `state` is pass, fail or none."""

    label: str
    value: str
    under: str
    state: str = "none"


def tiles(result: Result) -> tuple[Tile, ...]:
    """The numbers that people look for first."""
    found = []
    evaluation, latency, size = result.evaluation, result.latency, result.size
    if evaluation is not None:
        under = _under(result.gates.drop, fmt.drop, "no budget")
        found.append(Tile("Accuracy drop", fmt.drop(evaluation.drop), *under))
        low = f"lowest {fmt.cosine(evaluation.cosine.min)}"
        found.append(Tile("Mean cosine to fp32", fmt.cosine(evaluation.cosine.mean), low))
    if latency is not None:
        under = _under(result.gates.latency, fmt.milliseconds, latency.kind)
        found.append(Tile("Time of one image", fmt.milliseconds(latency.p50_ms), *under))
    if result.device is not None:
        found.append(_device_tile(result.device, result.gates.latency))
    below = f"fp32 {fmt.short_size(size.fp32_model)}"
    found.append(Tile("INT8 model", fmt.short_size(size.model), below))
    return tuple(found)


def _device_tile(device: DeviceResult, gate: Gate | None) -> Tile:
    time = device.milliseconds
    if time is None:
        assert device.cycles is not None
        return Tile("Cycles of one image", f"{device.cycles / 1e6:.1f} M", "modelled")
    if time.low is None or time.high is None:
        under = _under(gate, fmt.milliseconds, device.kind)
        return Tile("Time of one image", fmt.milliseconds(time.value), *under)
    state = "none"
    if gate is not None and gate.chance != "uncertain":
        state = "pass" if gate.passed else "fail"
    interval = f"modelled, {time.low:.1f} to {time.high:.1f} ms"
    return Tile("Time of one image", f"{time.value:.1f} ms", interval, state)


def _under(gate: Gate | None, show: Callable[[float], str], otherwise: str) -> tuple[str, str]:
    if gate is None:
        return otherwise, "none"
    return f"budget {show(gate.limit)}", "pass" if gate.passed else "fail"
