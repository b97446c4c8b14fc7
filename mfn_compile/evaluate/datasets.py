"""Opens any supported benchmark by what lies at the path."""

from __future__ import annotations

from pathlib import Path

from mfn_compile.errors import BadInputError, UsageError
from mfn_compile.evaluate.folder import open_folder
from mfn_compile.evaluate.imageset import Dataset
from mfn_compile.evaluate.insightface_bin import open_bin
from mfn_compile.evaluate.lfw import is_lfw, open_lfw


def open_dataset(
    path: Path, *, pairs: Path | None = None, landmarks: Path | None = None
) -> Dataset:
    """Open an lfw_home, an InsightFace `.bin` set, or a folder of aligned crops with `pairs`.

    Raises:
        BadInputError: nothing usable lies there.
        UsageError: an option does not belong to what lies there.
    """
    if not path.exists():
        raise BadInputError("no such file or folder", where=str(path))
    if path.is_file():
        if pairs or landmarks:
            raise UsageError("a .bin set has pairs and alignment of its own", where=str(path))
        return open_bin(path)
    if pairs is not None:
        if landmarks:
            raise UsageError("a folder of crops is aligned already: it takes no landmarks")
        return open_folder(path, pairs)
    if is_lfw(path) or is_lfw(path / "lfw_home"):
        return open_lfw(path if is_lfw(path) else path / "lfw_home", landmarks)
    raise BadInputError(
        "no benchmark found",
        where=str(path),
        why="It is not laid out as LFW (lfw_funneled/ beside pairs.txt)",
        hint="A folder of aligned crops needs its pairs list as well: --images DIR --pairs FILE",
    )
