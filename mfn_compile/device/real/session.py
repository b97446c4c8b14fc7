"""One board in use: the process that talks to it, ended at the deadline, and its failures named."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from mfn_compile.device.real.failures import code_failed, damaged, hung, lost, step_failed
from mfn_compile.device.real.programs import RESULT
from mfn_compile.device.real.tracker import Place
from mfn_compile.errors import DeviceError

LONGEST = 16 << 20  # characters of an answer
KEPT_ERRORS = 2000
LEAVE_SECONDS = 3.0


@dataclass(frozen=True)
class Job:
    """A piece of work for a board; `number` and the limits are what board.c takes.

    Attributes:
        name: unique, plain.
        library: name of the shared object.
    """

    name: str
    number: int
    library: str
    warm_up: int = 0
    repeats: int = 0
    budget_ms: int = 0


class BoardSession:
    """A session on one board; close it, or use it in a with statement.

    Args:
        end: time.monotonic() at which it is given up.

    Raises:
        DeviceError: no process can be started.
    """

    def __init__(self, end: float) -> None:
        self._place = "no board yet"
        self._end = end
        self._text = b""
        package = Path(__file__).resolve().parents[3]
        paths = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mfn_compile.device.real.client"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                bufsize=0,
            )
        except OSError as error:
            raise DeviceError(
                "The process that talks to boards cannot be started",
                where=sys.executable,
                why=error.strerror or str(error),
                hint="Close other programs and run again",
            ) from error
        self._errors = b""

    def load(self) -> None:
        """Wait until TVM is there: a board forgets who asked for it within seconds.

        Raises:
            DeviceError: TVM cannot be imported here, or not in time.
        """
        self._answer("before it was connected to")

    def open(self, place: Place, files: dict[str, Path]) -> None:
        """Connect to a board and send it files.

        Args:
            place: from the tracker, used once.
            files: what is sent, by name.

        Raises:
            DeviceError: the board cannot be reached, is too old, full, silent or lost.
        """
        self._place = str(place)
        wanted = {
            "host": place.host,
            "port": place.port,
            "word": place.word,
            "seconds": max(self._end - time.monotonic(), 1.0),
            "files": {name: str(path.absolute()) for name, path in files.items()},
            "result": RESULT,
        }
        self._ask(wanted, "while it was connected to")

    def run(self, job: Job) -> bytes:
        """The bytes of result.txt.

        Raises:
            DeviceError: the board hangs, is lost, or cannot load the library or do the job.
            InternalCheckError: the library refused the call.
        """
        answer = self._ask(
            {
                "library": job.library,
                "number": job.number,
                "warm_up": job.warm_up,
                "repeats": job.repeats,
                "budget_ms": job.budget_ms,
            },
            f"while it did the job {job.name}",
        )
        code, content = answer.get("code"), answer.get("content")
        if not isinstance(code, int) or not isinstance(content, str):
            raise damaged(self._place)
        if code:
            raise code_failed(self._place, code)
        return content.encode("ascii", errors="replace")

    def kill(self) -> None:
        """End the process, whatever it does; for other threads than the one that uses it."""
        self._process.kill()

    def close(self) -> None:
        """End the process: let it take its leave, since TVM's own server would not survive less."""
        if self._process.stdin:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            left = self._end - time.monotonic()
            self._process.wait(max(min(left, LEAVE_SECONDS), 0))
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream:
                stream.close()
        self._process.wait()

    def __enter__(self) -> BoardSession:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(self, message: dict[str, Any], doing: str) -> dict[str, Any]:
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(json.dumps(message).encode() + b"\n")
        except OSError as error:  # it ended; what it said before is read below, if anything
            if not self._text:
                raise lost(self._place, doing, self._last_error()) from error
        return self._answer(doing)

    def _answer(self, doing: str) -> dict[str, Any]:
        line = self._line(doing)
        try:
            answer = json.loads(line)
        except ValueError as error:
            raise damaged(self._place) from error
        if not isinstance(answer, dict):
            raise damaged(self._place)
        if "failed" in answer:
            raise step_failed(self._place, answer["failed"], str(answer.get("text")), doing)
        return answer

    def _line(self, doing: str) -> bytes:
        """The next line of the process, read before the deadline."""
        stdout, stderr = self._process.stdout, self._process.stderr
        assert stdout is not None
        assert stderr is not None
        open_streams = [stdout, stderr]
        while b"\n" not in self._text:
            left = self._end - time.monotonic()
            ready = select.select(open_streams, [], [], max(left, 0))[0] if left > 0 else []
            if not ready:
                raise hung(self._place, doing)
            if stderr in ready:
                part = os.read(stderr.fileno(), 1 << 16)
                self._errors = (self._errors + part)[-KEPT_ERRORS:]
                if not part:
                    open_streams.remove(stderr)
            if stdout in ready:
                part = os.read(stdout.fileno(), 1 << 20)
                self._text += part
                if not part or len(self._text) > LONGEST:
                    raise lost(self._place, doing, self._last_error())
        line, _, self._text = self._text.partition(b"\n")
        return line

    def _last_error(self) -> str:
        lines = [line.strip() for line in self._errors.decode(errors="replace").splitlines()]
        return next((line for line in reversed(lines) if line), "")[:300]
