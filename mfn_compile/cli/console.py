"""How progress looks: a rich bar on a terminal, plain lines elsewhere, nothing with --quiet.

Progress and notes go to standard error, results to standard output.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from mfn_compile.cli.interrupt import InterruptibleProgress, remember_interrupts
from mfn_compile.progress import Progress, SilentProgress, Task

PLAIN_INTERVAL_S = 10.0  # how often a plain task says how far it is


class _PlainTask:
    def __init__(self, title: str, total: int | None) -> None:
        self._title, self._total = title, total
        self._done, self._said = 0, time.monotonic()

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Print a line when the last one is old."""
        self._done += steps
        now = time.monotonic()
        if now - self._said >= PLAIN_INTERVAL_S and self._done != self._total:
            self._said = now
            of = f" of {self._total}" if self._total is not None else ""
            print(f"{self._title}: {self._done}{of} {note}".rstrip(), file=sys.stderr, flush=True)


class PlainProgress:
    """Lines without control characters, for logs and CI."""

    @contextmanager
    def task(self, title: str, total: int | None = None) -> Iterator[Task]:
        """Say when a task begins, now and then how far it is, and how long it took."""
        print(f"{title} ...", file=sys.stderr, flush=True)
        start = time.monotonic()
        yield _PlainTask(title, total)
        print(f"{title}: done in {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Print a line."""
        print(text, file=sys.stderr, flush=True)


class RichProgress:
    """Bars on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - --help must not wait for it

        self._console = Console(stderr=True)

    @contextmanager
    def task(self, title: str, total: int | None = None) -> Iterator[Task]:
        """Show a bar with the time left, then leave one line."""
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            MofNCompleteColumn,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bars  # noqa: PLC0415

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        start = time.monotonic()
        with Bars(*columns, console=self._console, transient=True) as bars:
            identity = bars.add_task(title, total=total, note="")

            class _Bar:
                def advance(self, steps: int = 1, note: str = "") -> None:
                    bars.update(identity, advance=steps)
                    if note:
                        bars.update(identity, note=note)

            yield _Bar()
        self._console.print(f"[green]✓[/] {title} [dim]{time.monotonic() - start:.1f} s[/]")

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        self._console.print(text, markup=False, highlight=False)


def make_progress(*, quiet: bool) -> Progress:
    """The progress that fits standard error, ended by Ctrl-C at the latest at its next step."""
    remember_interrupts()
    if quiet:
        return InterruptibleProgress(SilentProgress())
    return InterruptibleProgress(RichProgress() if sys.stderr.isatty() else PlainProgress())
