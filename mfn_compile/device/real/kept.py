"""Answers of an unfinished measurement, in files, so that another try asks only for the rest."""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from mfn_compile.device.real.answer import Answer, parse_answer
from mfn_compile.errors import DeviceError

OLDEST_S = 24 * 3600.0  # another day's temperature and load are another measurement


@dataclass(frozen=True)
class Kept:
    """One job's answer.

    Attributes:
        board: name of the board that gave it.
        answer: what it said.
    """

    board: str
    answer: Answer


class Shelf:
    """The answers of one measurement, a file each, written whole or not at all.

    Args:
        folder: of this measurement alone.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, job: str) -> Kept | None:
        """The answer to a job; None where there is none, or only an old or damaged one."""
        path = self._folder / f"{job}.json"
        try:
            if time.time() - path.stat().st_mtime > OLDEST_S:
                return None
            found = json.loads(path.read_text(encoding="utf-8"))
            return Kept(str(found["board"]), parse_answer(found["content"].encode(), "kept"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, DeviceError):
            return None

    def put(self, job: str, board: str, content: bytes) -> Kept:
        """Keep what a board answered.

        Raises:
            DeviceError: the answer is damaged, or the folder cannot be written.
        """
        answer = parse_answer(content, board)
        document = {"board": board, "content": content.decode("ascii", errors="replace")}
        aside = self._folder / f".{job}.{os.getpid()}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            aside.write_text(json.dumps(document), encoding="utf-8")
            os.replace(aside, self._folder / f"{job}.json")
        except OSError as error:
            raise DeviceError(
                "A board's answer cannot be written",
                where=str(error.filename or self._folder),
                why=error.strerror or str(error),
                hint="Free some space or name another folder with --cache-dir",
            ) from error
        return Kept(board, answer)

    def clear(self) -> None:
        """Forget a measurement that is finished: the next one shall measure anew."""
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                path.unlink(missing_ok=True)
            self._folder.rmdir()
