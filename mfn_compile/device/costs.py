"""Cycles of blocks by their code: computed once a model, remembered on disk."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Protocol

from mfn_compile.device.board import Core
from mfn_compile.device.inorder import InOrder
from mfn_compile.device.mca import Mca, find_mca
from mfn_compile.errors import DeviceError

FILE = "cycles.sqlite"
PATIENCE_S = 60.0  # while another run writes
CHUNK = 500  # keys of one question
_SOURCES = ("assembly", "inorder", "mca", "operation", "timing")


class Model(Protocol):
    """Something that knows how long blocks take."""

    @property
    def identity(self) -> str:
        """Name and version."""
        ...

    def cycles(self, codes: Sequence[bytes]) -> list[float]:
        """Cycles of one run of each block."""
        ...


def model_of(core: Core) -> Model:
    """The pipeline model of a core.

    Raises:
        DeviceError: it is llvm-mca's, and that is missing or too old.
    """
    kind, _, name = core.model.partition(":")
    if kind == "mca":
        return Mca(name, core.dispatch, find_mca())
    return InOrder("a53" if name == "a53" else "a55")


class Costs:
    """Cycles by a model, with a file in `folder` that remembers them."""

    def __init__(self, model: Model, folder: Path) -> None:
        self._model = model
        self._path = folder / FILE
        self._identity = f"{model.identity} {_source_digest()}"

    def of(self, codes: Iterable[bytes]) -> dict[bytes, float]:
        """Cycles of one run of every block, by its code.

        Raises:
            DeviceError: the model failed, or the file cannot be written.
        """
        keys = {code: self._key(code) for code in codes}
        try:
            known = self._load(keys.values())
            missing = sorted(code for code, key in keys.items() if key not in known)
            if missing:
                found = zip(missing, self._model.cycles(missing), strict=True)
                fresh = {keys[code]: cycles for code, cycles in found}
                self._save(fresh)
                known |= fresh
        except (OSError, sqlite3.OperationalError) as error:
            raise DeviceError(
                "The cache of modelled cycles cannot be used",
                where=str(self._path),
                why=str(error),
                hint="Free some space, or name another folder with MFN_CACHE_DIR",
            ) from error
        return {code: known[key] for code, key in keys.items()}

    def _key(self, code: bytes) -> str:
        return hashlib.sha256(self._identity.encode() + b"\0" + code).hexdigest()

    def _load(self, keys: Iterable[str]) -> dict[str, float]:
        wanted = sorted(set(keys))
        found: dict[str, float] = {}
        try:
            with closing(self._open()) as database:
                for start in range(0, len(wanted), CHUNK):
                    some = wanted[start : start + CHUNK]
                    marks = ",".join("?" * len(some))
                    question = f"SELECT key, cycles FROM cycles WHERE key IN ({marks})"
                    found |= dict(database.execute(question, some).fetchall())
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:  # a damaged file: begin again
            self._path.unlink(missing_ok=True)
            return {}
        return found

    def _save(self, fresh: dict[str, float]) -> None:
        with closing(self._open()) as database, database:
            database.executemany("INSERT OR REPLACE INTO cycles VALUES (?, ?)", fresh.items())

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self._path, timeout=PATIENCE_S)
        try:
            database.execute(
                "CREATE TABLE IF NOT EXISTS cycles (key TEXT PRIMARY KEY, cycles REAL)"
            )
        except sqlite3.Error:
            database.close()
            raise
        return database


@cache
def _source_digest() -> str:
    """Hash of the models' own code: a changed rule forgets what the old one said."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    return digest.hexdigest()
