"""Commands that ask a device: profile."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mfn_compile.cli import options
from mfn_compile.cli.boundary import ErrorBoundary

if TYPE_CHECKING:
    from mfn_compile.device_result import DeviceResult

SHOWN = 15  # kernels in the table; --json has all
LOG_WIDTH = 140  # where there is no terminal that would break lines
NAME_WIDTH = 20
COLUMNS = (  # title, and the column of the report's table
    ("layers", 2),
    ("cycles", 3),
    ("time", 4),
    ("share", 5),
    ("MAC/cycle", 6),
    ("of peak", 7),
    ("moved", 8),
    ("bound", 10),
    ("code", 11),
)


class VariantName(StrEnum):
    """Which code of a library."""

    NEON = "neon"
    DOTPROD = "dotprod"
    I8MM = "i8mm"


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(profile)


def profile(
    bundle: Annotated[Path, typer.Argument(help="Folder that a run for an ARM target wrote.")],
    device: Annotated[
        str,
        typer.Option(help="virtual:NAME (a core or a board, modelled), rpc://HOST:PORT/KEY, local"),
    ],
    variant: Annotated[
        VariantName | None,
        typer.Option(
            help="Of a virtual device; default: the fastest that bundle and core have.",
            show_default=False,
        ),
    ] = None,
    device_seconds: options.DeviceSeconds = 300.0,
    cache_dir: options.CacheDir = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Say where one inference spends its time on a device, kernel by kernel.

    On a virtual device the library runs under QEMU and the cycles are a model's. They are not a
    time: waiting for memory is not in them. A virtual board scales them to one, with its error.
    """
    with ErrorBoundary(debug=debug):
        from mfn_compile.cli.console import make_progress  # noqa: PLC0415
        from mfn_compile.on_device import parse, profile_on  # noqa: PLC0415

        chosen = parse(device)
        with redirect_stdout(sys.stderr):
            found = profile_on(
                chosen,
                bundle,
                variant.value if variant else None,
                cache_dir=cache_dir,
                progress=make_progress(quiet=quiet),
                seconds=device_seconds,
            )
        if as_json:
            typer.echo(found.model_dump_json(indent=2, exclude_none=True))
        else:
            _show(found)


def _show(found: DeviceResult) -> None:
    from rich.console import Console  # noqa: PLC0415 - not needed for --json
    from rich.table import Table  # noqa: PLC0415

    from mfn_compile.report.device import facts, kernels  # noqa: PLC0415
    from mfn_compile.report.format import ABSENT  # noqa: PLC0415

    console = Console()
    if not console.is_terminal:
        console = Console(width=LOG_WIDTH)
    console.print(f"One image: {found.says()}", highlight=False, soft_wrap=True)
    for row in facts(found):
        console.print(f"  {row.label}: {row.value}", highlight=False, soft_wrap=True)
    for text in found.warnings:
        console.print(f"Note: {text}", highlight=False, soft_wrap=True)
    rows = kernels(found)
    # A column without a value (a model's microseconds) only takes the names' room.
    columns = [c for c in COLUMNS if any(cells[c[1]] != ABSENT for cells in rows)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("kernel", overflow="fold", ratio=1, min_width=NAME_WIDTH)
    for title, _ in columns:
        table.add_column(title, justify="right", no_wrap=True, min_width=len(title))
    for cells in rows[:SHOWN]:
        table.add_row(cells[0], *(cells[index] for _, index in columns))
    console.print(table)
    if len(found.kernels) > SHOWN:
        console.print(f"and {len(found.kernels) - SHOWN} more; --json has them", highlight=False)
