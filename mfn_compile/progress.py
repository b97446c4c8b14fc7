"""What stages use to say how far they are; mfn_compile.cli.console decides how it looks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """One thing a person waits for."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count finished steps; `note` is shown beside them."""


class Progress(Protocol):
    """Where stages report to."""

    def task(self, title: str, total: int | None = None) -> AbstractContextManager[Task]:
        """Open a task of `total` steps; None when the length is not known."""

    def note(self, text: str) -> None:
        """Print one line that stays."""


class SilentTask:
    """Says nothing."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Drop the steps."""


class SilentProgress:
    """Reports nothing: the default of the Python API."""

    @contextmanager
    def task(self, title: str, total: int | None = None) -> Iterator[Task]:
        """Open a task that reports nothing."""
        yield SilentTask()

    def note(self, text: str) -> None:
        """Drop the line."""
