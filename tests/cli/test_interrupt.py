"""Ctrl-C that a library swallowed still ends the run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from mfn_compile.cli import interrupt
from mfn_compile.cli.interrupt import InterruptibleProgress, remember_interrupts
from mfn_compile.progress import SilentProgress


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    remember_interrupts()
    yield
    signal.signal(signal.SIGINT, before)
    interrupt._received.clear()


def swallowed() -> None:
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_the_next_step_raises_it_again() -> None:
    steps = []

    def work() -> None:
        with InterruptibleProgress(SilentProgress()).task("work", 2) as task:
            task.advance()
            swallowed()
            steps.append("after the swallowed signal")
            task.advance()
            steps.append("never")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == ["after the swallowed signal"]


def test_the_end_of_a_task_and_the_next_one_raise_it_again() -> None:
    progress = InterruptibleProgress(SilentProgress())
    with pytest.raises(KeyboardInterrupt), progress.task("work"):
        swallowed()
    with pytest.raises(KeyboardInterrupt), progress.task("more"):
        pass
    with pytest.raises(KeyboardInterrupt):
        progress.note("text")


def test_nothing_is_raised_without_it() -> None:
    progress = InterruptibleProgress(SilentProgress())
    with progress.task("work", 1) as task:
        task.advance()
    progress.note("text")
