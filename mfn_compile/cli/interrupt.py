"""Ctrl-C that libraries cannot lose.

Some of them catch everything around an import or a callback, KeyboardInterrupt included. The signal
is remembered here, and the next step of a task raises it again.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mfn_compile.progress import Progress, Task

_received: list[int] = []


def remember_interrupts() -> None:
    """Handle SIGINT as Python does, and remember it."""
    _received.clear()
    signal.signal(signal.SIGINT, _handle)


def _handle(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    signal.default_int_handler(number, frame)


def _raise_again() -> None:
    if _received:
        raise KeyboardInterrupt


class InterruptibleTask:
    """A task whose steps end in KeyboardInterrupt once Ctrl-C was pressed."""

    def __init__(self, inner: Task) -> None:
        self._inner = inner

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count steps of the inner task."""
        self._inner.advance(steps, note)
        _raise_again()


class InterruptibleProgress:
    """Progress whose tasks do not outlive Ctrl-C."""

    def __init__(self, inner: Progress) -> None:
        self._inner = inner

    @contextmanager
    def task(self, title: str, total: int | None = None) -> Iterator[Task]:
        """Open a task of the inner progress."""
        _raise_again()
        with self._inner.task(title, total) as task:
            yield InterruptibleTask(task)
        _raise_again()

    def note(self, text: str) -> None:
        """Print a line of the inner progress."""
        _raise_again()
        self._inner.note(text)
