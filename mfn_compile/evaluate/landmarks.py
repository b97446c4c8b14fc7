"""The landmark table of LFW: five points an image, and the images' split."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mfn_compile.errors import BadInputError
from mfn_compile.evaluate.pairs_file import read_text
from mfn_compile.resources import data_dir

_COORDINATES = tuple(f"{axis}{i}" for i in range(5) for axis in "xy")
_FILE = "lfw_landmarks.csv"


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Rows of the table.

    Args:
        names: N image names without their ending.
        points: float64 [N, 5, 2], (x, y) in pixels, pixel centres at whole numbers.
        splits: N words, empty where the table does not say.
    """

    names: tuple[str, ...]
    points: NDArray[np.float64]
    splits: tuple[str, ...]


def packaged_table() -> Path:
    """Path of the table that ships with the package."""
    return data_dir("calib") / _FILE


def read_landmarks(path: Path) -> Landmarks:
    """Read a table with the columns image,x0,y0,...,x4,y4 and optionally split.

    Raises:
        BadInputError: a column is missing, a value is no number, or an image occurs twice.
    """
    try:
        reader = csv.DictReader(io.StringIO(read_text(path)), strict=True)
        missing = [c for c in ("image", *_COORDINATES) if c not in (reader.fieldnames or ())]
        if missing:
            raise BadInputError(
                "landmark table lacks columns", where=str(path), why=", ".join(missing)
            )
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise BadInputError("landmark table is no CSV", where=str(path), why=str(error)) from error
    points = np.empty((len(rows), 10))
    for i, (line, row) in enumerate(rows):
        try:
            points[i] = [float(row[column]) for column in _COORDINATES]
        except (TypeError, ValueError) as error:
            raise BadInputError(
                "landmark table is malformed", where=f"{path}, line {line}", why=str(error)
            ) from error
        if not np.isfinite(points[i]).all():
            raise BadInputError("landmark is not finite", where=f"{path}, line {line}")
    names = tuple(row["image"] for _, row in rows)
    if len(set(names)) != len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise BadInputError("landmark table names an image twice", where=str(path), why=twice)
    return Landmarks(names, points.reshape(-1, 5, 2), tuple(r.get("split") or "" for _, r in rows))
