"""Bundles of the stub, made once a session."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.arm.firmware import stub


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For AArch64, two variants; not to be changed."""
    return stub.build(tmp_path_factory.mktemp("firmware"))


@pytest.fixture(scope="session")
def host_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For this machine; not to be changed."""
    return stub.build_host(tmp_path_factory.mktemp("host"))


@pytest.fixture
def copied(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the AArch64 bundle that a test may damage."""
    return shutil.copytree(bundle, tmp_path / "copied")
