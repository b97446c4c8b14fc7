"""The log of a tuning: the one file that a killed run resumes from.

`tuning.json` says what the folder is of, `trials.jsonl` has one line a trial, `trials.csv` is the
same for spreadsheets. MetaSchedule's two database files are written again from the log on every
start, because its loader refuses a half-written last line.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from io import FileIO, StringIO
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import Field, StrictBool, StrictInt, StrictStr, ValidationError

from mfn_compile.errors import DeviceError, UsageError
from mfn_compile.files import write_whole
from mfn_compile.frozen import Frozen
from mfn_compile.tune.errors import FolderBusyError, TuningFolderError
from mfn_compile.tune.task import Choice, Outcome, Point, Task
from mfn_compile.wording import wording

FORMAT = 1
HEADER, LINES, TABLE = "tuning.json", "trials.jsonl", "trials.csv"
PATIENCE_S = 2.0
MAX_ERROR = 2000  # characters
MAX_BYTES = 1 << 28  # half a million trials
RESTART = "Tune into another folder, or delete this one to measure everything again"


class Header(Frozen):
    """What a folder's trials are of.

    Attributes:
        target: the core whose cycles were counted.
        code: version of everything that the cycles depend on besides the knobs.
        spaces: by kernel, SHA-256 of its knobs and their values.
    """

    format: int
    target: str
    code: str
    spaces: dict[str, str]


class Line(Frozen):
    """One trial: `cycles` or `error`, and the seconds that measuring took."""

    trial: int = Field(ge=1)
    kernel: str
    knobs: dict[str, StrictBool | StrictInt | StrictStr]
    cycles: float | None = Field(gt=0)
    error: str | None
    seconds: float = Field(ge=0)
    target: str
    seed: int

    @property
    def outcome(self) -> Outcome:
        """What was measured."""
        return Outcome(self.cycles, self.error, self.seconds)


class Log:
    """An open log; `known` has every trial of the given kernels by kernel and point."""

    def __init__(self, known: dict[tuple[str, Point], Line], last: int, header: Header) -> None:
        self.known = known
        self._last = last
        self._header = header
        self._files: list[FileIO] = []

    def open(self, folder: Path, stack: ExitStack) -> None:
        """Open the files for appending until `stack` closes.

        Raises:
            DeviceError: a file cannot be opened.
        """
        for name in (LINES, TABLE):
            try:
                # Without a buffer, for closing one would write again what a full disk refused.
                handle = FileIO(folder / name, "a")
            except OSError as error:
                raise _unwritable(folder / name, error) from error
            self._files.append(stack.enter_context(handle))

    def append(self, task: Task, choice: Choice, outcome: Outcome, seed: int) -> Line:
        """Write one trial to both files; it is in the hands of the system on return.

        Raises:
            DeviceError: the disk is full, or the files cannot be written.
        """
        self._last += 1
        line = Line(
            trial=self._last,
            kernel=task.key,
            knobs=dict(choice),
            cycles=outcome.cycles,
            error=None if outcome.error is None else _printable(outcome.error),
            seconds=round(outcome.seconds, 6),
            target=self._header.target,
            seed=seed,
        )
        texts = (line.model_dump_json() + "\n", _row(line))
        for handle, text in zip(self._files, texts, strict=True):
            try:
                _write(handle, text.encode())
            except OSError as error:
                raise _unwritable(Path(str(handle.name)), error) from error
        self.known[task.key, task.point(choice)] = line
        return line


@contextmanager
def open_log(folder: Path, tasks: Sequence[Task], target: str, code: str) -> Iterator[Log]:
    """The folder's log, for this process alone; a half-written last line is dropped.

    Raises:
        TuningFolderError: the log is damaged, or is of another target, code or knob space.
        FolderBusyError: another process tunes in this folder.
        DeviceError: the folder cannot be written.
    """
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(folder / ".lock", timeout=PATIENCE_S))
        except Timeout as error:
            raise FolderBusyError(
                "Another process is tuning in this folder",
                where=str(folder),
                hint="Wait for it, or tune into another folder",
            ) from error
        except OSError as error:
            raise _unwritable(Path(error.filename or folder), error) from error
        header = _header(folder, tasks, target, code)
        lines = _read(folder / LINES, target)
        log = Log(_known(folder / LINES, lines, tasks), len(lines), header)
        write_whole(folder / HEADER, (header.model_dump_json(indent=1) + "\n").encode())
        write_whole(folder / TABLE, "".join([_heading(), *map(_row, lines)]).encode())
        log.open(folder, stack)
        yield log


def _header(folder: Path, tasks: Sequence[Task], target: str, code: str) -> Header:
    """The folder's header with the tasks added to it, after a check that they fit."""
    spaces = {task.key: task.space_sha256() for task in tasks}
    path = folder / HEADER
    if not path.exists():
        if (folder / LINES).exists():
            raise TuningFolderError(
                "The folder has trials and nothing that says of what",
                where=str(path),
                hint=RESTART,
            )
        return Header(format=FORMAT, target=target, code=code, spaces=spaces)
    try:
        old = Header.model_validate_json(_content(path))
    except ValidationError as error:
        raise _damaged(path, error) from error
    for name, found, wanted in (
        ("format", old.format, FORMAT),
        ("target", old.target, target),
        ("code", old.code, code),
        *((f"spaces.{key}", old.spaces.get(key, sha), sha) for key, sha in spaces.items()),
    ):
        if found != wanted:
            raise TuningFolderError(
                "The folder's trials are not of this tuning",
                where=f"{path}: {name}",
                why=f"it has {found!r}, this run {wanted!r}",
                hint=RESTART,
            )
    merged = dict(sorted((old.spaces | spaces).items()))
    return old.model_copy(update={"spaces": merged})


def _read(path: Path, target: str) -> list[Line]:
    """The log's lines; what a kill left of the last one is cut off the file."""
    if not path.exists():
        return []
    raw = _content(path)
    whole = raw[: raw.rfind(b"\n") + 1]
    if len(whole) < len(raw):
        write_whole(path, whole)
    lines = []
    for number, text in enumerate(whole.splitlines(), start=1):
        where = Path(f"{path}:{number}")
        try:
            line = Line.model_validate_json(text)
        except ValidationError as error:
            raise _damaged(where, error) from error
        if (
            line.trial != number
            or line.target != target
            or (line.cycles is None) == (line.error is None)
        ):
            raise TuningFolderError(
                "The log's line contradicts its file", where=str(where), hint=RESTART
            )
        lines.append(line)
    return lines


def forget(folder: Path, names: Sequence[str]) -> None:
    """Delete files of the folder that are written again from the log.

    Raises:
        DeviceError: one cannot be deleted.
    """
    for name in names:
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(folder / name, error) from error


def _write(handle: FileIO, content: bytes) -> None:
    """All of it: a disk that gets full takes a part first."""
    while content:
        content = content[handle.write(content) :]


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as handle:
            raw = handle.read(MAX_BYTES + 1)
    except OSError as error:
        raise TuningFolderError(
            "A file of the tuning folder cannot be read",
            where=str(path),
            why=error.strerror or str(error),
            hint=RESTART,
        ) from error
    if len(raw) > MAX_BYTES:
        raise TuningFolderError(
            f"The file is larger than {MAX_BYTES} bytes", where=str(path), hint=RESTART
        )
    return raw


def _unwritable(path: Path, error: OSError) -> DeviceError:
    return DeviceError(
        "The tuning folder cannot be written",
        where=str(path),
        why=error.strerror or str(error),
        hint="Free some space, look at its permissions, or tune into another folder",
    )


def _printable(error: str) -> str:
    """The beginning of an error text, whatever bytes a tool printed."""
    return error[:MAX_ERROR].encode("utf-8", "replace").decode() or "unknown"


def _damaged(where: Path, error: ValidationError) -> TuningFolderError:
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    why = f"{place}: {wording(first)}" if place else wording(first)
    return TuningFolderError(
        "The tuning folder is damaged", where=str(where), why=why, hint=RESTART
    )


def _known(path: Path, lines: list[Line], tasks: Sequence[Task]) -> dict[tuple[str, Point], Line]:
    by_key = {task.key: task for task in tasks}
    known: dict[tuple[str, Point], Line] = {}
    for line in lines:
        if (task := by_key.get(line.kernel)) is None:
            continue
        try:
            point = task.point(line.knobs)
        except UsageError as error:
            raise TuningFolderError(
                "The log has knobs that are not in the kernel's space",
                where=f"{path}:{line.trial}",
                why=error.why,
                hint=RESTART,
            ) from error
        known.setdefault((line.kernel, point), line)
    return known


def _heading() -> str:
    return _csv(list(Line.model_fields))


def _row(line: Line) -> str:
    return _csv([line.trial, line.kernel, json.dumps(line.knobs), *_rest(line)])


def _rest(line: Line) -> list[object]:
    return [line.cycles, line.error, line.seconds, line.target, line.seed]


def _csv(values: Sequence[object]) -> str:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()
