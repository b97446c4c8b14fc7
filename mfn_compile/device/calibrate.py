"""How modelled times of networks compare with measured ones, and where boards keep the answer."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import Field
from scipy.stats import spearmanr

from mfn_compile.boards import Agreement, Calibration
from mfn_compile.errors import BadInputError
from mfn_compile.frozen import Frozen
from mfn_compile.tomlfile import load_model

DIGITS = 3  # of the numbers in a board's file; the fourth is noise
SECTION = "[board.cores.calibration]"
_ENTRY = "[[board.cores]]"
Written = TypeVar("Written", Calibration, Agreement)


class Row(Frozen):
    """Published times of one board's core: milliseconds of an inference by network."""

    title: str = Field(min_length=1)
    target: str = Field(min_length=1, description="name of the board's file in targets/")
    core: str
    clock_ghz: float = Field(gt=0)
    threads: int = Field(ge=1, le=1, description="the virtual board has one")
    fitted: bool = Field(description="seen when rules of the model were chosen")
    heading: str = Field(min_length=1, description="above the times in the source")
    ms: dict[str, float]


class Published(Frozen):
    """Rows of one source."""

    repository: str
    file: str
    row: tuple[Row, ...] = Field(min_length=1)

    def source(self, rows: Sequence[Row]) -> str:
        """What to cite for these rows."""
        headings = "; ".join(dict.fromkeys(row.heading for row in rows))
        return f"{self.repository}, {self.file}: {headings}"


def load_published(path: Path) -> Published:
    """Read a file of published times.

    Raises:
        BadInputError: it cannot be read or is none.
    """
    return load_model(path, Published, "table of published times")


def agreement(predicted: Sequence[float], measured: Sequence[float]) -> Agreement:
    """Spread and rank correlation; a common factor does not matter.

    Raises:
        ValueError: there are fewer than two, not equally many, or one is not positive.
    """
    logs = _logs(predicted, measured)
    return Agreement(spread=math.exp(float(np.std(logs))), rank=_rank(predicted, measured))


def calibration(
    modelled: Sequence[float],
    instructions: Sequence[float],
    measured: Sequence[float],
    networks: Sequence[str],
    *,
    fitted: bool,
    source: str,
) -> Calibration:
    """What to divide modelled milliseconds of a board's core by, and how far they then lie off.

    Args:
        modelled: milliseconds by the model, cycles over the clock, of one network each.
        instructions: of the same networks, in any unit.
        measured: milliseconds on the board.
        networks: their names. A network that was measured twice is left out twice at once.
        fitted: whether these had been seen when rules of the model were chosen.
        source: where they are published.

    Raises:
        ValueError: there are fewer than two networks, not equally many of all, or one is not
            positive.
    """
    logs = _logs(modelled, measured)
    if len(networks) != len(logs) or len(set(networks)) < 2:
        raise ValueError("every point needs its network, and there must be two")
    left = []
    for log, network in zip(logs, networks, strict=True):
        others = [x for x, name in zip(logs, networks, strict=True) if name != network]
        left.append(log - math.fsum(others) / len(others))
    own = agreement(modelled, measured)
    return Calibration(
        ratio=math.exp(math.fsum(logs) / len(logs)),
        spread=own.spread,
        rank=own.rank,
        leave_one_out=math.exp(math.sqrt(math.fsum(x * x for x in left) / len(left))),
        worst=math.exp(max(abs(x) for x in left)),
        instructions=agreement(instructions, measured),
        points=len(logs),
        fitted=fitted,
        source=source,
    )


def _logs(predicted: Sequence[float], measured: Sequence[float]) -> list[float]:
    if len(predicted) != len(measured) or len(measured) < 2:
        raise ValueError("at least two predictions are needed, and as many measurements")
    if min(*predicted, *measured) <= 0:
        raise ValueError("times and counts are positive")
    return [math.log(p) - math.log(m) for p, m in zip(predicted, measured, strict=True)]


def _rank(predicted: Sequence[float], measured: Sequence[float]) -> float:
    if len(set(predicted)) == 1 or len(set(measured)) == 1:
        return 0.0  # what is all equal has no ranks
    return max(-1.0, min(1.0, float(spearmanr(predicted, measured).statistic)))


def rounded(found: Written) -> Written:
    """The same with as many digits as a board's file keeps."""
    return type(found).model_validate(_rounded(found.model_dump()))


def _rounded(values: Mapping[str, object]) -> dict[str, object]:
    return {
        key: round(value, DIGITS)
        if isinstance(value, float)
        else _rounded(value)
        if isinstance(value, dict)
        else value
        for key, value in values.items()
    }


def with_calibrations(text: str, found: Mapping[str, Calibration]) -> str:
    """A board's file with these calibrations, by core; everything else stays as it is.

    Args:
        text: TOML with a [[board.cores]] section for every core of `found`.
        found: what to write behind each, instead of what is there.

    Raises:
        BadInputError: there is no such section.
    """
    parts = list(_sections(text))
    missing = set(found)
    for index, part in enumerate(parts):
        if not part.startswith(_ENTRY):
            continue
        core = tomllib.loads(part)["board"]["cores"][0]["core"]
        if core not in found:
            continue
        missing.discard(core)
        kept = part.rstrip("\n")
        parts[index] = f"{kept}\n\n{_toml(rounded(found[core]))}"
        if index + 1 < len(parts) and parts[index + 1].startswith(SECTION):
            parts[index + 1] = ""
        if any(parts[index + 1 :]):
            parts[index] += "\n"
    if missing:
        raise BadInputError(
            f"The file has no [[board.cores]] for {', '.join(sorted(missing))}",
            hint="Add the section with the core and its clock first",
        )
    return "".join(parts)


def _sections(text: str) -> Iterator[str]:
    """The file in pieces that begin with a table's header."""
    piece: list[str] = []
    for line in text.splitlines(keepends=True):
        if line.startswith("[") and piece:
            yield "".join(piece)
            piece = []
        piece.append(line)
    yield "".join(piece)


def _toml(found: Calibration) -> str:
    lines = [SECTION]
    for key, value in found.model_dump().items():
        if isinstance(value, dict):
            inner = ", ".join(f"{name} = {number}" for name, number in value.items())
            lines.append(f"{key} = {{ {inner} }}")
        elif isinstance(value, bool):
            lines.append(f"{key} = {str(value).lower()}")
        elif isinstance(value, str):
            escaped = value.replace("\\", "\\\\").replace('"', '\\"')
            lines.append(f'{key} = "{escaped}"')
        else:
            lines.append(f"{key} = {value}")
    return "\n".join(lines) + "\n"
