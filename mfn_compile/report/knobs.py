"""Tables of the search over OpenVINO's settings."""

from __future__ import annotations

from mfn_compile.knob_result import KnobSearch, KnobTrial, OpenVinoUse, Ratio
from mfn_compile.model.preprocessing import Preprocessing
from mfn_compile.report import format as fmt
from mfn_compile.report.tables import Fact

HEADER = (
    "Tried",
    "Times as fast (95 % interval)",
    "Inside OpenVINO alone",
    "Again, on new instances",
    "Rounds",
    "Embeddings",
    "Cosine to fp32",
    "Outcome",
)
BUSY = 1.05  # noise above which small gains cannot be seen
EXPLANATION = (
    "Each was timed in turns with the best so far, from uint8 pixels to the embedding, and is kept "
    "when both of its intervals are above the noise. Above 1 is faster. Other numbers of threads "
    "are told and never chosen."
)


def use(found: OpenVinoUse, shape: Preprocessing) -> list[Fact]:
    """How to run the artifact."""
    settings = ", ".join(f"{name}={found.properties[name]}" for name in sorted(found.properties))
    who = "inside of the artifact" if found.normalizes else "the caller's"
    rows = [
        Fact("Properties", settings),
        Fact("Input", found.input_of(shape.height, shape.width)),
        Fact("Normalization", who),
    ]
    if found.float_layers:
        rows.append(Fact("In float32 for speed", ", ".join(found.float_layers)))
    return rows


def facts(found: KnobSearch) -> list[Fact]:
    """What the search brought, and how sure that is."""
    rows = [Fact("Kept", kept(found))]
    if found.gain is not None:
        rows.append(Fact("Together, against the default", _interval(found.gain)))
    if found.gain_inference is not None:
        rows.append(Fact("The same, inside OpenVINO alone", fmt.ratio(found.gain_inference)))
    rows += [
        Fact("The default against itself", _interval(found.control)),
        Fact("Noise to be beaten", _exact(found.noise)),
        Fact("Crops whose embeddings were compared", fmt.count(found.images)),
        Fact("Cosine of the default to fp32", fmt.cosine(found.cosine)),
    ]
    if found.untried:
        rows.append(Fact("Left out when the time was up", ", ".join(found.untried)))
    return rows


def kept(found: KnobSearch) -> str:
    """The names of what was kept."""
    return ", ".join(trial.name for trial in found.kept) or "the default"


def short(found: KnobSearch) -> str:
    """One line for the console."""
    tried = fmt.plural(len(found.trials), "candidate")
    late = f", {fmt.count(len(found.untried))} left out" if found.untried else ""
    busy = f"; the machine was busy (noise {_exact(found.noise)})" if found.noise > BUSY else ""
    if found.gain is None:
        return f"the default; none of {tried} is faster beyond the noise{late}{busy}"
    speed = f"{kept(found)}: {_interval(found.gain)} of the default's speed"
    return f"{speed}; {tried} tried{late}{busy}"


def trials(found: KnobSearch) -> list[tuple[str, ...]]:
    """Every candidate in the order it was tried."""
    return [_row(trial) for trial in found.trials]


def _row(trial: KnobTrial) -> tuple[str, ...]:
    same = {True: "the same bits", False: "other bits", None: fmt.ABSENT}[trial.same_bits]
    return (
        trial.name,
        fmt.ABSENT if trial.ratio is None else _interval(trial.ratio),
        fmt.ABSENT if trial.inference is None else _exact(trial.inference),
        fmt.ABSENT if trial.again is None else _interval(trial.again),
        fmt.count(trial.rounds),
        same,
        fmt.ABSENT if trial.cosine is None else fmt.cosine(trial.cosine),
        trial.outcome,
    )


def _interval(ratio: Ratio) -> str:
    return f"{_exact(ratio.value)} ({fmt.fixed(ratio.low, 3)} to {fmt.fixed(ratio.high, 3)})"


def _exact(value: float) -> str:
    return f"{fmt.fixed(value, 3)}x"  # a gain of one per cent is what this is about
