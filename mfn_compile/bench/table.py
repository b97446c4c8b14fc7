"""A benchmark as text: Markdown for a page, JSON for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mfn_compile.bench.results import OURS, TIE, Bench, Count, Model, Native

ABSENT = "\N{EN DASH}"
NOTES = (
    f"Cycles are modelled: no waiting for caches or memory, no mispredicted branches; gaps of less "
    f"than {TIE:.0%} are ties. No ranking of different engines was checked on hardware.",
    "Image normalization is not counted for the peers, which take float input; ours takes uint8 "
    "pixels and counts it.",
    "Cosine, LFW and memory are of each engine's wheel for this machine; memory is what the "
    "process grows by from the engine's import on, without Python. Half precision exists on ARM "
    "only, so it has none of these here.",
)


def markdown(bench: Bench) -> str:
    """All tables of a benchmark."""
    parts = [f"### {bench.network}", f"```sh\n{bench.command}\n```"]
    for device in dict.fromkeys(row.device for row in bench.counts):
        rows = [row for row in bench.counts if row.device == device]
        parts += [f"#### {device}", _table(COUNT_TITLES, _count_rows(rows))]
    if bench.native:
        title = f"#### This machine ({bench.host}), natively, one thread each"
        parts += [title, _table(NATIVE_TITLES, _native_rows(bench.native))]
    parts += ["#### The models", _table(MODEL_TITLES, map(_model_cells, bench.models))]
    reasons = _reasons(bench)
    if reasons:
        parts += ["Without a number:", "\n".join(f"- {line}" for line in reasons)]
    parts.append("\n".join(f"- {note}" for note in NOTES))
    return "\n\n".join(parts) + "\n"


COUNT_TITLES = (
    "engine", "precision", "M cycles", "against ours", "modelled ms", "M instructions",
    "L1 misses", "L2 misses", "cosine",
)  # fmt: skip
NATIVE_TITLES = ("engine", "precision", "ms", "time / ours", "middle half of the rounds", "verdict")
MODEL_TITLES = (
    "engine", "precision", "version", "model", "runtime", "memory", "cosine",
    "LFW", "change", "threshold kept", "quantizer",
)  # fmt: skip


def verdict(ratio: float | None) -> str:
    """How an engine stands against ours, by the ratio of its cycles or time to ours."""
    if ratio is None:
        return ABSENT
    if 1 / (1 + TIE) < ratio < 1 + TIE:
        return f"{ratio:.2f} (tie)"
    return f"{ratio:.2f} ({'slower' if ratio > 1 else 'faster'} than ours)"


def _count_rows(rows: Sequence[Count]) -> list[list[str]]:
    base = next((row.cycles for row in rows if row.engine == OURS), None)
    ordered = sorted(rows, key=lambda row: row.cycles or float("inf"))
    return [_count_cells(row, base) for row in ordered]


def _count_cells(row: Count, base: float | None) -> list[str]:
    ratio = row.cycles / base if row.cycles and base and row.engine != OURS else None
    time = row.milliseconds
    span = ABSENT if time is None else f"{time.value:.1f}"
    if time is not None and time.low is not None and time.high is not None:
        span += f" ({time.low:.1f} to {time.high:.1f})"
    return [
        row.engine,
        row.precision,
        _mega(row.cycles),
        verdict(ratio),
        span,
        _mega(row.instructions),
        _number(row.l1_misses),
        _number(row.l2_misses),
        _cosine(row.cosine),
    ]


def _native_rows(rows: Sequence[Native]) -> list[list[str]]:
    ordered = sorted(rows, key=lambda row: row.ratio or float("inf"))
    return [
        [
            row.engine,
            row.precision,
            ABSENT if row.milliseconds is None else f"{row.milliseconds:.2f}",
            ABSENT if row.ratio is None else f"{row.ratio:.2f}",
            ABSENT if row.low is None or row.high is None else f"{row.low:.2f} to {row.high:.2f}",
            ABSENT if row.engine == OURS and row.ratio == 1 else verdict(row.ratio),
        ]
        for row in ordered
    ]


def _model_cells(model: Model) -> list[str]:
    drift = model.lfw
    return [
        model.engine,
        model.precision,
        model.version,
        _megabytes(model.model_bytes),
        _megabytes(model.runtime_bytes),
        _megabytes(model.memory_bytes),
        _cosine(model.cosine),
        ABSENT if drift is None else f"{drift.accuracy:.2f} %",
        ABSENT if drift is None else f"{drift.change:+.2f}",
        ABSENT if drift is None else f"{drift.kept_change:+.2f}",
        model.quantizer or ABSENT,
    ]


def _reasons(bench: Bench) -> list[str]:
    """Every row without a number, devices with the same reason together."""
    found: dict[tuple[str, str, str], list[str]] = {}
    rows: list[Count | Native] = [*bench.counts, *bench.native]
    for row in rows:
        if row.reason:
            where = row.device if isinstance(row, Count) else "this machine"
            found.setdefault((row.engine, row.precision, row.reason), []).append(where)
    return [
        f"{engine} {precision} ({', '.join(where)}): {reason}"
        for (engine, precision, reason), where in found.items()
    ]


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _mega(value: float | None) -> str:
    return ABSENT if value is None else f"{value / 1e6:.1f}"


def _megabytes(value: int | None) -> str:
    return ABSENT if value is None else f"{value / 1e6:.2f} MB"


def _number(value: int | None) -> str:
    return ABSENT if value is None else f"{value:,}"


def _cosine(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.4f}"
