"""Commands that tell about the surroundings: targets, recipes, doctor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from mfn_compile.cli import options
from mfn_compile.cli.boundary import ErrorBoundary

Name = Annotated[str | None, typer.Argument(help="Show this one whole: a name or a TOML file.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(targets)
    app.command()(recipes)
    app.command()(doctor)


def targets(name: Name = None, as_json: options.Json = False, debug: options.Debug = False) -> None:
    """List the targets, or show one."""
    with ErrorBoundary(debug=debug):
        from mfn_compile.backend import BACKENDS  # noqa: PLC0415
        from mfn_compile.target import list_targets, load_target  # noqa: PLC0415

        if name is not None:
            typer.echo(load_target(name).to_json(), nl=False)
            return
        found = list_targets()
        if as_json:
            _echo_json([target.model_dump(mode="json") for target in found])
            return
        rows = [
            (
                target.name,
                target.backend + ("" if target.backend in BACKENDS else " (absent)"),
                f"{target.budget.latency_ms:g} ms",
                target.description,
            )
            for target in found
        ]
        _echo_table(("target", "backend", "budget", "description"), rows)


def recipes(name: Name = None, as_json: options.Json = False, debug: options.Debug = False) -> None:
    """List the quantization recipes, or show one."""
    with ErrorBoundary(debug=debug):
        from mfn_compile.recipe import list_recipes, load_recipe  # noqa: PLC0415

        if name is not None:
            typer.echo(load_recipe(name).to_json(), nl=False)
            return
        found = list_recipes()
        if as_json:
            _echo_json([recipe.model_dump(mode="json") for recipe in found])
            return
        _echo_table(("recipe", "description"), [(r.name, r.description) for r in found])


def doctor(as_json: options.Json = False, debug: options.Debug = False) -> None:
    """Tell what is installed, what is missing, and what that disables."""
    with ErrorBoundary(debug=debug):
        from mfn_compile.doctor import examine, failure  # noqa: PLC0415

        checks = examine()
        if as_json:
            _echo_json([check.model_dump(mode="json") for check in checks])
        else:
            _echo_table(
                ("", "what", "found", "means"),
                [("ok" if c.ok else "--", c.name, c.found, c.meaning) for c in checks],
            )
        if (error := failure(checks)) is not None:
            raise error


def _echo_json(value: object) -> None:
    import json  # noqa: PLC0415

    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _echo_table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in header:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
