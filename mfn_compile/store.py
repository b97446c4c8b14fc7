"""Content-addressed results of stages: a known key is not computed again, a killed run resumes.

Layout below the root: `STAGE/KEY/` holds a finished stage (result.json and its files),
`STAGE/KEY.partial/` one under way, `STAGE/KEY.lock` keeps two runs from building the same key.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Generic, TypeVar

import platformdirs
from filelock import FileLock, Timeout
from pydantic import BaseModel

from mfn_compile.errors import DeviceError
from mfn_compile.hashing import file_sha256, value_sha256

R = TypeVar("R", bound=BaseModel)
RESULT = "result.json"
PATIENCE_S = 2.0  # a wait longer than this is said


@dataclass(frozen=True)
class Stage(Generic[R]):
    """Identity of a stage.

    Attributes:
        name: folder of its results.
        result: pydantic model that it returns.
        code: sub-packages or modules of mfn_compile whose source is part of the key.
        tools: distributions whose versions are part of the key.
    """

    name: str
    result: type[R]
    code: tuple[str, ...]
    tools: tuple[str, ...] = ()

    def key(self, inputs: Mapping[str, Any]) -> str:
        """SHA-256 over the inputs, the stage's own source and the versions of its tools."""
        return value_sha256(
            {
                "stage": self.name,
                "inputs": inputs,
                "code": {name: source_sha256(name) for name in self.code},
                "tools": {name: tool_version(name) for name in self.tools},
            }
        )


@dataclass(frozen=True)
class Stored(Generic[R]):
    """A finished stage: its result, the folder with its files, and whether it was known."""

    result: R
    folder: Path
    reused: bool


def tool_version(distribution: str) -> str:
    """Installed version, or "absent"."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "absent"


@cache
def source_sha256(name: str) -> str:
    """SHA-256 over the files of a module or sub-package of this package, templates too."""
    root = Path(__file__).parent / name.replace(".", "/")
    found = root.rglob("*") if root.is_dir() else [root.with_suffix(".py")]
    paths = sorted(p for p in found if p.is_file() and p.parent.name != "__pycache__")
    digest = hashlib.sha256()
    for path in paths:
        digest.update(str(path.relative_to(root.parent)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def default_root() -> Path:
    """Cache folder: MFN_CACHE_DIR, or the platform's user cache."""
    if given := os.environ.get("MFN_CACHE_DIR"):
        return Path(given)
    return Path(platformdirs.user_cache_dir("mfn-compile"))


class Store:
    """Finished stages below one root folder; safe for several processes at once."""

    def __init__(self, root: Path, notify: Callable[[str], None] = lambda text: None) -> None:
        self.root = root
        self._notify = notify

    def run(
        self, stage: Stage[R], inputs: Mapping[str, Any], build: Callable[[Path], R]
    ) -> Stored[R]:
        """Return the stored result of `stage` for `inputs`, building it when it is not known.

        `build` gets a folder to write its files to. After a kill the same folder comes again, with
        whatever the dead run left: a long stage can resume from it, a short one overwrites it.

        Raises:
            DeviceError: the cache folder cannot be written, or the disk is full.
        """
        key = stage.key(inputs)
        final = self.root / stage.name / key
        partial = final.with_suffix(".partial")
        with self._lock(final):
            if (known := _load(stage, final)) is not None:
                return Stored(known, final, reused=True)
            with self._writing():
                partial.mkdir(parents=True, exist_ok=True)
            result = build(partial)
            with self._writing():
                _seal(partial, result)
                _remove(final)
                partial.rename(final)
        return Stored(result, final, reused=False)

    def folder(self, name: str) -> Path:
        """A folder of the store that a stage manages by itself (the embedding chunks)."""
        with self._writing():
            path = self.root / name
            path.mkdir(parents=True, exist_ok=True)
        return path

    @contextmanager
    def _lock(self, final: Path) -> Iterator[None]:
        lock = FileLock(f"{final}.lock")
        with self._writing():
            final.parent.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=PATIENCE_S)
            except Timeout:
                self._notify(f"another run is building {final.parent.name}; waiting for it")
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DeviceError(
                "A file cannot be written or read",
                where=str(error.filename or self.root),
                why=error.strerror or str(error),
                hint="Free some space or name another folder with --cache-dir",
            ) from error


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _seal(folder: Path, result: BaseModel) -> None:
    files = {
        str(path.relative_to(folder)): file_sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != RESULT
    }
    document = {"files": files, "result": result.model_dump(mode="json", by_alias=True)}
    text = json.dumps(document, indent=1, sort_keys=True)
    aside = folder / f".{RESULT}"
    with aside.open("w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    aside.rename(folder / RESULT)


def _load(stage: Stage[R], folder: Path) -> R | None:
    """The stored result, or None when absent or damaged (then it is built again)."""
    try:
        document = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        for name, expected in document["files"].items():
            if file_sha256(folder / name) != expected:
                return None
        return stage.result.model_validate(document["result"])
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError):  # not what _seal writes
        return None
