"""Readers of pairs lists: LFW's pairs.txt and a CSV of file names."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from mfn_compile.errors import BadInputError
from mfn_compile.evaluate.decode import read_bytes
from mfn_compile.evaluate.pairs import PairSet, contiguous_folds

MAX_LIST_BYTES = 64 * 2**20
_SHOWN = 5  # absent names that an error spells out
_TRUTH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


@dataclass(frozen=True)
class NamedPair:
    """One line of a pairs list; `line` counts from 1."""

    first: str
    second: str
    same: bool
    fold: int
    line: int


def read_text(path: Path) -> str:
    """A text file in UTF-8 of at most 64 MiB."""
    try:
        return read_bytes(path, MAX_LIST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInputError("file is not UTF-8 text", where=str(path), why=str(error)) from error


def read_lfw_pairs(path: Path) -> list[NamedPair]:
    """Read LFW's View 2 list (http://vis-www.cs.umass.edu/lfw/README.txt, pairs.txt).

    The first line holds the number of folds F and of pairs N; then F times follow N lines
    `name n1 n2` (one person) and N lines `name1 n1 name2 n2` (two people). Image names come out
    as `name_0001`.

    Raises:
        BadInputError: the file departs from this; the line number is named.
    """
    lines = read_text(path).splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    folds, size = _lfw_header(lines, path)
    expected = 1 + 2 * folds * size
    if len(lines) != expected:
        raise BadInputError(
            f"pairs list has {len(lines)} lines instead of {expected}",
            where=str(path),
            why=f"its header announces {folds} folds of {size} matched and {size} mismatched pairs",
        )
    return [
        _lfw_line(line, number, (number - 2) // (2 * size), (number - 2) % (2 * size) < size, path)
        for number, line in enumerate(lines[1:], start=2)
    ]


def _lfw_header(lines: Sequence[str], path: Path) -> tuple[int, int]:
    fields = lines[0].split() if lines else []
    if len(fields) != 2 or not all(f.isascii() and f.isdigit() and len(f) < 8 for f in fields):
        _fail(path, 1, "the header must be two numbers: folds, and pairs of each kind in a fold")
    folds, size = int(fields[0]), int(fields[1])
    if folds < 2 or size < 1:
        _fail(path, 1, "at least 2 folds of 1 pair are needed to choose a threshold on the others")
    return folds, size


def _lfw_line(line: str, number: int, fold: int, same: bool, path: Path) -> NamedPair:
    fields = line.split()
    if len(fields) != (3 if same else 4):
        form = "name n1 n2 (matched pair)" if same else "name1 n1 name2 n2 (mismatched pair)"
        _fail(path, number, f"expected {form}, found {line.strip()[:80]!r}")
    name_1, number_1 = fields[0], fields[1]
    name_2, number_2 = (fields[0], fields[2]) if same else (fields[2], fields[3])
    for value in (number_1, number_2):
        if not (value.isascii() and value.isdigit() and 0 < len(value) < 8):
            _fail(path, number, f"{value[:80]!r} is no image number")
    first, second = f"{name_1}_{int(number_1):04d}", f"{name_2}_{int(number_2):04d}"
    if first == second:
        _fail(path, number, f"{first} is compared to itself")
    return NamedPair(first, second, same, fold, number)


def read_csv_pairs(path: Path) -> list[NamedPair]:
    """Read a CSV with the header `first,second,same` or `first,second,same,fold`.

    `same` is 1/0, true/false or yes/no. Without folds the list is cut into ten in order.

    Raises:
        BadInputError: the file departs from this; the line number is named.
    """
    reader = csv.reader(io.StringIO(read_text(path)), strict=True)
    try:
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except csv.Error as error:
        raise BadInputError(
            "pairs list is no CSV", where=f"{path}, line {reader.line_num}", why=str(error)
        ) from error
    header = rows[0][1] if rows else []
    if header not in (["first", "second", "same"], ["first", "second", "same", "fold"]):
        _fail(path, 1, "the header must be first,second,same or first,second,same,fold")
    body = rows[1:]
    default = contiguous_folds(len(body)) if len(header) == 3 else np.zeros(0, np.int64)
    pairs = []
    for position, (number, row) in enumerate(body):
        if len(row) != len(header):
            _fail(path, number, f"expected {len(header)} fields, found {len(row)}")
        if row[2].lower() not in _TRUTH:
            _fail(path, number, f"same is {row[2][:80]!r}; it must be 1 or 0")
        if row[0] == row[1]:
            _fail(path, number, f"{row[0]} is compared to itself")
        fold = _fold(row[3], path, number) if len(header) == 4 else int(default[position])
        pairs.append(NamedPair(row[0], row[1], _TRUTH[row[2].lower()], fold, number))
    return _renumbered(pairs)


def _fold(text: str, path: Path, number: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 8):
        _fail(path, number, f"fold is {text[:80]!r}; it must be a whole number")
    return int(text)


def _renumbered(pairs: list[NamedPair]) -> list[NamedPair]:
    """Folds may be labelled from 1 or with gaps: number them from 0 in order."""
    order = {fold: i for i, fold in enumerate(sorted({pair.fold for pair in pairs}))}
    return [NamedPair(p.first, p.second, p.same, order[p.fold], p.line) for p in pairs]


def resolve(pairs: Sequence[NamedPair], index: Mapping[str, int], path: Path, root: str) -> PairSet:
    """Turn names into indices.

    Args:
        pairs: lines of a list.
        index: image name to index.
        path: the list, for the error.
        root: where the images were looked for, for the error.

    Raises:
        BadInputError: names absent from `index`; the first few are spelled out.
    """
    absent: dict[str, int] = {}
    for pair in pairs:
        for name in (pair.first, pair.second):
            if name not in index:
                absent.setdefault(name, pair.line)
    if absent:
        shown = ", ".join(f"{name} (line {line})" for name, line in list(absent.items())[:_SHOWN])
        more = f" and {len(absent) - _SHOWN} more" if len(absent) > _SHOWN else ""
        raise BadInputError(
            f"pairs name {len(absent)} absent image{'s' if len(absent) > 1 else ''}",
            where=str(path),
            why=f"{shown}{more}: not in {root}",
            hint="Add the images or take the pairs out of the list",
        )
    try:
        return PairSet(
            np.array([index[p.first] for p in pairs], np.int64),
            np.array([index[p.second] for p in pairs], np.int64),
            np.array([p.same for p in pairs], np.bool_),
            np.array([p.fold for p in pairs], np.int64),
        )
    except BadInputError as error:
        raise BadInputError(error.what, where=str(path), why=error.why) from error


def _fail(path: Path, line: int, why: str) -> NoReturn:
    raise BadInputError("pairs list is malformed", where=f"{path}, line {line}", why=why)
