"""What a board wrote about one job: the lines of result.txt, checked."""

from __future__ import annotations

import re

from pydantic import Field, ValidationError

from mfn_compile.errors import DeviceError
from mfn_compile.frozen import Frozen

LARGEST = 8 << 20  # bytes
FIRST = "mfn-board 1"
DAY_NS = 86_400_000_000_000
_TEXTS = ("machine", "kernel", "node", "model", "cpu.implementer", "cpu.part", "cpu.model")
_NUMBERS = ("core", "vectors", "dotprod", "i8mm", "wrong", "skipped")
_WHOLE = re.compile(r"-?[0-9]{1,15}")


class State(Frozen):
    """What the system exposed at one moment; None where it did not."""

    governor: str | None = None
    kilohertz: int | None = Field(default=None, ge=0)
    millidegrees: int | None = None


class Answer(Frozen):
    """One job's outcome on one board."""

    machine: str = ""
    kernel: str = ""
    node: str = ""
    model: str = Field(default="", description="from the device tree")
    implementer: str = Field(default="", description="of the core, as /proc/cpuinfo has it")
    part: str = ""
    cpu: str = Field(default="", description="its model name, where /proc/cpuinfo has one")
    core: int = Field(default=-1, ge=-1, lt=1 << 16, description="-1 where none could be chosen")
    dotprod: bool = False
    i8mm: bool = Field(default=False, description="where the library has such a variant")
    vectors: int = Field(ge=0, description="golden vectors that were sent")
    right: int = Field(default=0, ge=0, description="of these, those whose every bit was right")
    wrong: int | None = Field(default=None, description="the vector that was not")
    skipped: bool = Field(default=False, description="the CPU cannot run the variant")
    before: State = State()
    after: State = State()
    times_ns: tuple[int, ...] = Field(default=(), description="of single inferences")
    layers_ns: tuple[tuple[int, ...], ...] = Field(
        default=(), description="one inference a row, one kernel call a column"
    )


def parse_answer(content: bytes, board: str) -> Answer:
    """The answer in the bytes of a result.txt.

    Raises:
        DeviceError: it is cut short, too large, or holds what the program never writes.
    """
    if len(content) > LARGEST:
        raise _damaged(board, f"it has {len(content)} bytes")
    lines = content.decode("ascii", errors="replace").splitlines()
    if len(lines) < 2 or lines[0] != FIRST or lines[-1] != "end":
        raise _damaged(board, "its first or last line is missing")
    found: dict[str, object] = {}
    states: dict[str, dict[str, object]] = {"before": {}, "after": {}}
    times: list[int] = []
    layers: list[tuple[int, ...]] = []
    right = 0
    try:
        for line in lines[1:-1]:
            name, _, value = line.partition(" ")
            when, _, what = name.partition(".")
            if name == "time":
                times.append(_duration(value))
            elif name == "layers":
                layers.append(tuple(_duration(one) for one in value.split(" ")))
            elif name == "right":
                right += 1
            elif when in states:
                whole = what in ("kilohertz", "millidegrees")
                states[when][what] = _whole(value) if whole else _plain(value)
            elif name in _NUMBERS:
                found[name] = _whole(value)
            elif name in _TEXTS:
                key = {"model": "model", "cpu.model": "cpu"}.get(name, name.removeprefix("cpu."))
                found[key] = _plain(value)
            else:
                raise ValueError(f"the line {line[:60]!r}")
        answer = Answer.model_validate(
            {**found, **states, "right": right, "times_ns": times, "layers_ns": layers}
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise _damaged(board, f"{where}: {first['msg']}") from error
    except ValueError as error:
        raise _damaged(board, str(error)) from error
    if len({len(row) for row in layers}) > 1:
        raise _damaged(board, "its rows of kernel times have different lengths")
    return answer


def _whole(text: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is no number")
    return int(text)


def _duration(text: str) -> int:
    value = _whole(text)
    if not 0 <= value < DAY_NS:
        raise ValueError(f"{value} is no duration")
    return value


def _plain(text: str) -> str:
    """A text for reports: no control characters, not long."""
    kept = "".join(c if 32 <= ord(c) < 127 else "?" for c in text.strip())
    return kept[:100]


def _damaged(board: str, why: str) -> DeviceError:
    return DeviceError(
        "The board's answer is damaged",
        where=board,
        why=why,
        hint="Check its disk and the connection, and run again",
    )
