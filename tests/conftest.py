"""Fixtures that several parts share: real input, and tiny input made on the spot."""

from __future__ import annotations

import csv
import os
import tarfile
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tiny import tiny_checkpoint

PEOPLE, SHOTS, SPARE = 10, 4, 60


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Workers take files in turn: those with slow tests first, lest one is alone with them."""
    if hasattr(config, "workerinput"):
        slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
        items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def data() -> Path:
    """Real input: the folder that MFN_DATA names."""
    given = os.environ.get("MFN_DATA")
    if not given:
        pytest.skip("MFN_DATA does not name the folder of real input")
    return Path(given)


@pytest.fixture(scope="session")
def lfw_home(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LFW, unpacked once a session."""
    folder = tmp_path_factory.mktemp("lfw")
    with tarfile.open(data / "lfw" / "lfw_home.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "lfw_home"


@dataclass(frozen=True)
class FaceFolder:
    """Rendered crops on disk with a pairs list that leaves some of them out."""

    images: Path
    pairs: Path


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> FaceFolder:
    """Ten people with four pictures each in pairs, and sixty strangers outside of them."""
    from mfn_compile.demo.faces import render

    root = tmp_path_factory.mktemp("faces")
    people = np.concatenate([np.repeat(np.arange(PEOPLE), SHOTS), 100 + np.arange(SPARE)])
    shots = np.concatenate([np.tile(np.arange(SHOTS), PEOPLE), np.zeros(SPARE, int)])
    names = []
    for crop, person, shot in zip(render(people, shots), people, shots, strict=True):
        name = f"p{person:03d}/{shot}.png"
        (root / "crops" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(crop).save(root / "crops" / name)
        names.append(name)
    same = [(a, b) for a, b in combinations(range(PEOPLE * SHOTS), 2) if people[a] == people[b]]
    other = [(a, b) for a, b in combinations(range(PEOPLE * SHOTS), 2) if people[a] != people[b]]
    chosen = [(a, b, 1) for a, b in same] + [(a, b, 0) for a, b in other[:: len(other) // 60][:60]]
    with (root / "pairs.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["first", "second", "same", "fold"])
        for index, (a, b, truth) in enumerate(chosen):
            writer.writerow([names[a], names[b], truth, index % 5])
    return FaceFolder(root / "crops", root / "pairs.csv")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random network in our own layout."""
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that the tests of one session share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session", autouse=True)
def _store_of_the_session(cache: Path) -> None:
    """No test touches the user's cache."""
    os.environ["MFN_CACHE_DIR"] = str(cache)
