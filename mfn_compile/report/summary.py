"""What the console prints after a run: the report's numbers, rounded as in the report."""

from __future__ import annotations

import io
from collections.abc import Iterable

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from mfn_compile.report import device, explained, firmware, knobs, tables
from mfn_compile.report import format as fmt
from mfn_compile.report.verdict import DEMO, is_demo, verdict
from mfn_compile.results import Evaluation, Result

WIDTH = 88  # of the plain text
STYLES = {True: "bold green", False: "bold red", None: "bold"}
WORST_LAYERS = 3


def summary(result: Result) -> Group:
    """The summary as something that a rich console prints."""
    found = verdict(result)
    parts: list[Text | Table] = [Text(found.headline, style=STYLES[found.passed])]
    parts.append(Text(found.sentence))
    parts += [Text(f"Note: {text}", style="yellow") for text in found.caveats]
    if result.evaluation is not None:
        parts.append(Text())
        parts.append(_drift(result.evaluation, f" ({DEMO})" if is_demo(result) else ""))
        parts.append(Text(tables.paired_meaning(result.evaluation)))
    parts += [Text(), _facts(_rest(result))]
    return Group(*parts)


def summary_text(result: Result) -> str:
    """The summary as plain text without colour, the same on every terminal."""
    return _plain(summary(result))


def evaluation_lines(evaluation: Evaluation) -> str:
    """An evaluation alone as plain text."""
    demo = f" ({DEMO})" if evaluation.rendered else ""
    return _plain(
        Group(
            _drift(evaluation, demo),
            Text(tables.paired_meaning(evaluation)),
            _facts(tables.paired(evaluation)[3:5] + tables.cosine(evaluation)),
        )
    )


def _plain(content: Group) -> str:
    console = Console(
        file=io.StringIO(),
        width=WIDTH,
        color_system=None,
        force_terminal=False,
        legacy_windows=False,
    )
    with console.capture() as capture:
        console.print(content)
    lines = (line.rstrip() for line in capture.get().splitlines())
    return "\n".join(lines) + "\n"


def _drift(evaluation: Evaluation, remark: str) -> Table:
    title = f"Drift on {evaluation.dataset}{remark}"
    table = Table(box=box.ASCII2, title=Text(title), title_justify="left", show_edge=False)
    table.add_column("")
    for name in ("fp32", "INT8", "INT8 - fp32"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in tables.drift(evaluation):
        table.add_row(row.label, row.fp32, row.int8, row.difference)
    return table


def _facts(rows: Iterable[tables.Fact]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        # Text, not str: a file name with brackets is no markup.
        table.add_row(Text(row.label), Text(row.value))
    return table


def _rest(result: Result) -> list[tables.Fact]:
    rows = []
    if result.evaluation is not None:
        rows += tables.cosine(result.evaluation)[:3]
    rows += tables.quantization(result.quantization)[:2]
    worst = tables.lowest(result.quantization.layers, WORST_LAYERS)
    if worst:
        rows.append(
            tables.Fact("Lowest layers", "; ".join(f"{row.name} {row.sqnr}" for row in worst))
        )
    if result.backend is not None:
        rows += tables.precision(result.backend)[:2]
        if result.backend.firmware is not None:
            rows += firmware.short(result.backend.firmware)
            rows += explained.schedule_facts(result.backend.firmware)
        if result.backend.openvino is not None:
            shape = result.checkpoint.preprocessing
            rows.append(knobs.use(result.backend.openvino, shape)[1])
        if result.backend.knobs is not None:
            rows.append(tables.Fact("Settings", knobs.short(result.backend.knobs)))
    if result.latency is not None:
        rows += _latency(result)
    if result.device is not None:
        rows += device.short(result.device)
        if text := explained.budget_sentence(result):
            rows.append(tables.Fact("Budget", text))
    rows += tables.size(result.size)
    rows += [tables.Fact("Note", text) for text in result.notes]
    return rows


def _latency(result: Result) -> list[tables.Fact]:
    found = result.latency
    assert found is not None
    times = "; ".join(f"{row.label.lower()} {row.int8}" for row in tables.latency(found))
    where = f"measured, {found.device}, {fmt.plural(found.threads, 'thread')}, {found.runtime}"
    return [
        tables.Fact("Latency", times),
        tables.Fact("Taken on", where),
        tables.Fact("Speed-up over fp32", fmt.ratio(found.speedup)),
    ]
