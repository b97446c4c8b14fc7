"""Compare the virtual boards with published times, and write what that says into targets/.

    tools/setup_virtual_board.sh ncnn
    python tools/calibrate_virtual_boards.py --write

Ten networks run through ncnn's AArch64 wheel on each of the four cores: 40 runs, half a minute to
two minutes each. Every run is kept in a folder and not repeated, so it can be stopped. The table
is printed as Markdown; docs/virtual-board.md explains it.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer
from calibration_runs import Run, count, wheel
from ncnn_networks import NETWORKS, image_size
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mfn_compile.boards import Calibration
from mfn_compile.device.blocks import Counts, join
from mfn_compile.device.board import Core, find_core
from mfn_compile.device.calibrate import (
    Published,
    Row,
    calibration,
    load_published,
    rounded,
    with_calibrations,
)
from mfn_compile.device.costs import Costs, model_of
from mfn_compile.device.emulator import folder as board_folder
from mfn_compile.device.profile import block_cycles
from mfn_compile.errors import MfnError
from mfn_compile.frozen import Frozen

HERE = Path(__file__).parent
HEAD = (
    "| board | fitted | points | ratio | spread | rank | leave one out | worst "
    "| instructions: spread | rank |"
)


class Cost(Frozen):
    """What an inference of a network costs on a core."""

    core: str
    network: str
    cycles: float
    instructions: float
    l1_misses: int
    l2_misses: int


class Line(Frozen):
    """One line of the table."""

    title: str
    target: str
    core: str
    found: Calibration


def cost(run: Run, counts: Counts, costs: Costs) -> Cost:
    """Put a model's price on counts."""
    return Cost(
        core=run.core.name,
        network=run.network,
        cycles=sum(block_cycles(join(counts.blocks), costs)),
        instructions=sum(block.instructions for block in counts.blocks),
        l1_misses=sum(block.l1 for block in counts.blocks),
        l2_misses=sum(block.l2 for block in counts.blocks),
    )


def plan(cores: Iterable[Core], folder: Path | None) -> list[Run]:
    """Every network on every core, the fast ones first; ncnn's own files if there is a folder."""
    texts = {
        name: (folder / f"{name}.param").read_text(encoding="ascii") if folder else make().text()
        for name, make in NETWORKS.items()
    }
    named = [(name, core) for name in texts for core in cores]
    return [Run(core, name, texts[name], image_size(name)) for name, core in named]


def measure(runs: list[Run], folder: Path, jobs: int) -> dict[tuple[str, str], Cost]:
    """Count all that was not counted, then ask the models; by core and network."""
    version = wheel()
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    found: dict[tuple[str, str], Cost] = {}
    models = {core.name: Costs(model_of(core), board_folder()) for core in {r.core for r in runs}}
    with (
        Progress(*columns, TimeElapsedColumn(), console=console) as bar,
        ThreadPoolExecutor(jobs) as pool,
    ):
        task = bar.add_task("networks on cores", total=len(runs))
        waiting = {pool.submit(count, run, folder, version): run for run in runs}
        try:
            for done in as_completed(waiting):
                run = waiting[done]
                found[run.core.name, run.network] = cost(run, done.result(), models[run.core.name])
                bar.update(task, advance=1, description=f"{run.network} on {run.core.name}")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return found


def line(
    rows: list[Row], published: Published, costs: Mapping[tuple[str, str], Cost], title: str
) -> Line:
    """Compare rows of one core at one clock, pooled, with its costs."""
    points = [(row, network, ms) for row in rows for network, ms in row.ms.items()]
    known = [costs[row.core, network] for row, network, _ in points]
    milliseconds = [
        cost.cycles / (row.clock_ghz * 1e6) for cost, (row, _, _) in zip(known, points, strict=True)
    ]
    found = calibration(
        milliseconds,
        [cost.instructions for cost in known],
        [ms for _, _, ms in points],
        [network for _, network, _ in points],
        fitted=any(row.fitted for row in rows),
        source=published.source(rows),
    )
    return Line(title=title, target=rows[0].target, core=rows[0].core, found=found)


def table(lines: Iterable[Line]) -> str:
    """Markdown."""
    out = [HEAD, "|---|---|---|---|---|---|---|---|---|---|"]
    for entry in lines:
        found, plain = entry.found, entry.found.instructions
        assert plain is not None  # a score always has it
        numbers = (found.ratio, found.spread, found.rank, found.leave_one_out, found.worst)
        cells = [entry.title, "yes" if found.fitted else "no", str(found.points)]
        cells += [f"{x:.2f}" for x in (*numbers, plain.spread, plain.rank)]
        out.append(f"| {' | '.join(cells)} |")
    return "\n".join(out)


def by_core(rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by the target and core whose calibration they make."""

    def key(row: Row) -> tuple[str, str]:
        return row.target, row.core

    return {pair: list(group) for pair, group in groupby(sorted(rows, key=key), key)}


def write(lines: Iterable[Line], targets: Path) -> None:
    """Put calibrations into the boards' files."""
    boards: dict[str, dict[str, Calibration]] = {}
    for entry in lines:
        boards.setdefault(entry.target, {})[entry.core] = entry.found
    for name, found in boards.items():
        path = targets / f"{name}.toml"
        text = with_calibrations(path.read_text(encoding="utf-8"), found)
        tomllib.loads(text)
        path.write_text(text, encoding="utf-8")


def main(
    runs: Annotated[Path, typer.Option(help="Folder that keeps counted runs.")] = Path(
        "build/calibration"
    ),
    networks: Annotated[
        Path | None, typer.Option(help="Folder of ncnn's own .param files to use instead.")
    ] = None,
    published: Annotated[Path, typer.Option(help="Published times.")] = HERE
    / "published_ncnn_times.toml",
    targets: Annotated[Path, typer.Option(help="Folder of the boards' files.")] = HERE.parent
    / "targets",
    jobs: Annotated[int, typer.Option(min=1, help="Runs at the same time.")] = 2,
    write_targets: Annotated[
        bool, typer.Option("--write", help="Update the boards' files.")
    ] = False,
    output: Annotated[Path | None, typer.Option("--json", help="File for all the numbers.")] = None,
) -> None:
    """Compare the virtual boards with published times."""
    try:
        known = load_published(published)
        cores = [find_core(name) for name in dict.fromkeys(row.core for row in known.row)]
        costs = measure(plan(cores, networks), runs, jobs)
        rows = [line([row], known, costs, row.title) for row in known.row]
        groups = by_core(known.row).items()
        lines = [line(group, known, costs, f"{name} {core}") for (name, core), group in groups]
        pooled = [one for one in lines if len(by_core(known.row)[one.target, one.core]) > 1]
        typer.echo(table([*rows, *pooled]))
        if write_targets:
            write(lines, targets)
        if output is not None:
            document = {
                "costs": [cost.model_dump() for cost in costs.values()],
                "rows": [
                    {**one.model_dump(), "found": rounded(one.found).model_dump()} for one in rows
                ],
            }
            output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    except MfnError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from error


if __name__ == "__main__":
    typer.run(main)
