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
    from mfn_compile.device.profile import Profile

SHOWN = 15  # kernels in the table; --json has all


class VariantName(StrEnum):
    """Which code of a library."""

    NEON = "neon"
    DOTPROD = "dotprod"


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(profile)


def profile(
    bundle: Annotated[Path, typer.Argument(help="Folder that a run for an ARM target wrote.")],
    core: Annotated[
        str, typer.Option(help="A core that the virtual board has a model of, like cortex-a72.")
    ],
    variant: Annotated[
        VariantName | None,
        typer.Option(help="Default: the fastest that bundle and core have.", show_default=False),
    ] = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Say where one inference spends its modelled cycles, kernel by kernel.

    The library runs under QEMU; the cycles are a model's. They are not a time: waiting for memory
    is not in them.
    """
    with ErrorBoundary(debug=debug):
        from mfn_compile.device.board import find_core  # noqa: PLC0415
        from mfn_compile.device.profile import best_variant  # noqa: PLC0415
        from mfn_compile.device.profile import profile as run  # noqa: PLC0415

        found_core = find_core(core)
        chosen = variant.value if variant else best_variant(bundle, found_core)
        with redirect_stdout(sys.stderr):
            found = run(bundle, found_core, chosen)
        if as_json:
            typer.echo(found.model_dump_json(indent=2))
        else:
            _show(found)


def _show(found: Profile) -> None:
    from rich.console import Console  # noqa: PLC0415 - not needed for --json
    from rich.table import Table  # noqa: PLC0415

    console = Console()
    console.print(
        f"{found.core}, {found.variant}: {found.cycles / 1e6:.2f} million modelled cycles, "
        f"{found.instructions / 1e6:.2f} million instructions, {found.l1_misses:,} L1 and "
        f"{found.l2_misses:,} L2 misses, {found.macs_per_cycle:.2f} multiply-adds a cycle. "
        f"Cycles from {found.model}; waiting for memory is not in them.",
        highlight=False,
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("kernel", overflow="fold", ratio=1)
    for title in ("calls", "Mcycles", "share", "MAC/cycle", "of peak", "bound", "code"):
        table.add_column(title, justify="right", no_wrap=True, min_width=len(title))
    for row in found.kernels[:SHOWN]:
        table.add_row(
            row.kernel,
            f"{row.calls:,}",
            f"{row.cycles / 1e6:.3f}",
            f"{100 * row.share:.1f} %",
            "" if row.macs_per_cycle is None else f"{row.macs_per_cycle:.2f}",
            "" if row.of_peak is None else f"{100 * row.of_peak:.0f} %",
            row.bound,
            f"{row.code_bytes:,}",
        )
    console.print(table)
    if len(found.kernels) > SHOWN:
        console.print(f"and {len(found.kernels) - SHOWN} more; --json has them", highlight=False)
