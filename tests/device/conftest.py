"""Programs and bundles for the virtual board."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mfn_compile.device.emulator import build_plugin, require_emulator
from mfn_compile.errors import DeviceError
from tests.arm.firmware import networks, stub


@pytest.fixture(scope="session")
def board() -> None:
    """Skip where QEMU or a compiler is missing."""
    stub.cross()
    stub.tool("qemu-aarch64")
    try:
        require_emulator(), build_plugin()
    except DeviceError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def bundle(board: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of both variants: the one that MFN_ARM_BUNDLE names, or a small one."""
    if given := os.environ.get("MFN_ARM_BUNDLE"):
        return Path(given)
    folder = tmp_path_factory.mktemp("profiled")
    return networks.make(networks.integer_network(), folder).bundle
