"""Gives jobs to every board that is free, until all are done or no board is left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mfn_compile.device.real.address import RpcAddress
from mfn_compile.device.real.answer import Answer
from mfn_compile.device.real.failures import RESUME, hung
from mfn_compile.device.real.kept import Kept, Shelf
from mfn_compile.device.real.session import BoardSession, Job
from mfn_compile.device.real.tracker import BusyError, Place, count_boards, request_board
from mfn_compile.errors import InternalCheckError, MfnError
from mfn_compile.progress import Task

PATIENCE = 3.0  # seconds after which one who waits for a board looks whether there still is work


@dataclass
class Shared:
    """Jobs that boards share, and what became of them.

    Attributes:
        address: of the tracker, with the boards' key.
        files: what every board gets, by name.
        shelf: where answers are kept.
        judge: raises where an answer says that the library is wrong.
        end: time.monotonic() at which all is given up.
    """

    address: RpcAddress
    files: dict[str, Path]
    shelf: Shelf
    judge: Callable[[str, Answer], None]
    end: float
    task: Task
    done: dict[str, Kept] = field(default_factory=dict)
    errors: list[MfnError] = field(default_factory=list)
    _todo: list[Job] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _sessions: list[BoardSession] = field(default_factory=list)
    _survivors: int = 0

    def run(self, jobs: Sequence[Job]) -> None:
        """Do the jobs; `errors` then has those of boards that were lost on the way.

        Raises:
            DeviceError: jobs are left, and no board that can do them.
            InternalCheckError: the library computes other bits there.
        """
        self._todo = list(jobs)
        while self._todo:
            left = self.end - time.monotonic()
            if left <= 0:
                raise self._last()
            free = count_boards(self.address, left)
            before, self._survivors = len(self._todo), 0
            self._round(min(free, len(self._todo)))
            wrong = [e for e in self.errors if isinstance(e, InternalCheckError)]
            if wrong:
                raise wrong[0]
            if self._todo and (len(self._todo) == before or not self._survivors):
                raise self._last()

    def _last(self) -> MfnError:
        return self.errors[-1] if self.errors else hung(str(self.address), "between jobs")

    def _round(self, boards: int) -> None:
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(boards)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except BaseException:  # an interrupt: end what talks to boards, at once
            with self._lock:
                self.end = 0.0
                for session in self._sessions:
                    session.kill()
            raise

    def _work(self) -> None:
        """Take jobs until there are none."""
        job: Job | None = None
        try:
            with BoardSession(self.end) as session:
                with self._lock:
                    self._sessions.append(session)
                session.load()
                place = self._request()
                if place is None:
                    return
                session.open(place, self.files)
                while (job := self._take()) is not None:
                    content = session.run(job)
                    self._finish(job, str(place), content)
                    job = None
            self._survivors += 1
        except MfnError as error:
            with self._lock:
                self.errors.append(error)
                if job is not None:
                    self._todo.insert(0, job)

    def _request(self) -> Place | None:
        """A board; None where others did all the work while none was free."""
        while True:
            left = max(self.end - time.monotonic(), 0.1)
            try:
                return request_board(self.address, min(left, PATIENCE))
            except BusyError:
                if left <= PATIENCE:
                    raise
                if not self._todo:
                    return None

    def _take(self) -> Job | None:
        with self._lock:
            wrong = any(isinstance(error, InternalCheckError) for error in self.errors)
            return self._todo.pop(0) if self._todo and not wrong else None

    def _finish(self, job: Job, place: str, content: bytes) -> None:
        kept = self.shelf.put(job.name, place, content)
        self.judge(place, kept.answer)
        with self._lock:
            self.done[job.name] = kept
            self.task.advance(note=f"{job.name} on {kept.answer.node or place}")


def lost_note(errors: Sequence[MfnError]) -> tuple[str, ...]:
    """Warnings about boards that were lost while others went on."""
    return tuple(
        f"A board was lost while others went on. {error.paragraph().removesuffix(f' {RESUME}.')}"
        for error in errors
    )
