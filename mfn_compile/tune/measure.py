"""Measures batches of candidates, several networks at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Protocol

from mfn_compile.errors import InternalCheckError
from mfn_compile.records import Choice
from mfn_compile.tune.task import Outcome, Task
from mfn_compile.tune.whole_network import Answer

CRASHED = "the compiler crashed"


class Bench(Protocol):
    """Runs a whole network; it is sent to worker processes."""

    @property
    def place(self) -> str:
        """Where it runs, for messages."""

    def answer(self, given: Mapping[str, Choice]) -> Answer:
        """What the network says with these knobs; kernels without keep the default."""


_bench: Bench | None = None  # of a worker process


@dataclass
class _Round:
    """Candidates that share a network: one of each kernel."""

    given: dict[str, Choice] = field(default_factory=dict)
    future: Future[tuple[Answer, float]] | None = None
    pool: ProcessPoolExecutor | None = None


class NetworkMeasure:
    """Measures candidates in worker processes; a context manager that ends them.

    Args:
        bench: the network and where it runs.
        processes: networks at a time.
    """

    def __init__(self, bench: Bench, processes: int) -> None:
        self._bench, self._processes = bench, processes
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> NetworkMeasure:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def __call__(self, batch: Sequence[tuple[Task, Choice]]) -> Iterator[Outcome]:
        """Outcomes in the batch's order.

        Raises:
            InternalCheckError: the network fails with the default knobs too.
            DeviceError: boards or their tracker failed, and no candidate is to blame.
        """
        rounds, places = _rounds(batch)
        for each in rounds:
            self._submit(each)
        answers: dict[int, tuple[Answer, float]] = {}
        for (task, _), place in zip(batch, places, strict=True):
            if place not in answers:
                answers[place] = self._finish(rounds[place])
            answer, seconds = answers[place]
            yield _outcome(answer, task.key, seconds)

    def rest(self, tasks: Sequence[Task]) -> float:
        """Cost of one inference that no task is about, with the default knobs.

        Raises:
            InternalCheckError: the network fails with them.
            DeviceError: boards or their tracker failed.
        """
        answer = self._default()
        return answer.total - sum(answer.cycles[task.key] * task.calls for task in tasks)

    def _submit(self, one: _Round) -> None:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._processes, context, _begin, (self._bench,))
        one.pool, one.future = self._pool, self._pool.submit(_answer, one.given)

    def _finish(self, one: _Round) -> tuple[Answer, float]:
        """The answer of a round and the seconds that one of its candidates took."""
        answer, spent = self._wait(one)
        if answer.whole == CRASHED:  # another network may have taken this one along
            self._submit(one)
            answer, spent = self._wait(one)
        if answer.whole:
            answer = self._halves(one.given, answer.whole)
        return answer, spent / (max(len(one.given), 1) * self._processes)

    def _wait(self, one: _Round) -> tuple[Answer, float]:
        """What a worker says, and its seconds."""
        assert one.future is not None
        try:
            return one.future.result()
        except BrokenProcessPool:
            if one.pool is self._pool:
                self._end()
            return Answer({}, {}, CRASHED), 0.0

    def _halves(self, given: Mapping[str, Choice], why: str) -> Answer:
        """Find what fails in a network that fails as a whole."""
        if len(given) == 1:
            self._default()
            return Answer({}, dict.fromkeys(given, why))
        names = list(given)
        cycles: dict[str, float] = {}
        errors: dict[str, str] = {}
        for half in (names[: len(names) // 2], names[len(names) // 2 :]):
            part = _Round({name: given[name] for name in half})
            self._submit(part)
            answer, _ = self._wait(part)
            if answer.whole:
                answer = self._halves(part.given, answer.whole)
            cycles |= {name: answer.cycles[name] for name in half if name in answer.cycles}
            errors |= {name: answer.errors[name] for name in half if name in answer.errors}
        return Answer(cycles, errors)

    def _default(self) -> Answer:
        """The network with the default knobs, which must not fail."""
        plain = _Round()
        self._submit(plain)
        answer, _ = self._wait(plain)
        if answer.whole or answer.errors:
            raise InternalCheckError(
                f"The network fails on {self._bench.place} with the default knobs",
                why=answer.whole or ", ".join(f"{k}: {v}" for k, v in answer.errors.items()),
                hint="Check the tools with `mfn-compile doctor`; else report it",
            )
        return answer

    def _end(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def _rounds(batch: Sequence[tuple[Task, Choice]]) -> tuple[list[_Round], list[int]]:
    """Networks that hold all candidates, and in which of them each one is."""
    rounds: list[_Round] = []
    places = []
    for task, choice in batch:
        free = (at for at, one in enumerate(rounds) if task.key not in one.given)
        at = next(free, len(rounds))
        if at == len(rounds):
            rounds.append(_Round())
        rounds[at].given[task.key] = choice
        places.append(at)
    return rounds, places


def _outcome(answer: Answer, key: str, seconds: float) -> Outcome:
    if key in answer.cycles:
        return Outcome.counted(answer.cycles[key], seconds)
    return Outcome(None, answer.errors.get(key, "it was not measured"), seconds)


def _begin(bench: Bench) -> None:
    """In a worker: keep the bench; leave interrupts to the parent, and do not outlive it."""
    global _bench
    _bench = bench
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # a worker that waits for work cannot be told otherwise


def _answer(given: dict[str, Choice]) -> tuple[Answer, float]:
    assert _bench is not None
    begun = time.monotonic()
    return _bench.answer(given), time.monotonic() - begun
