"""Programs and bundles for the virtual board."""

from __future__ import annotations

import os
import shutil
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


@pytest.fixture(scope="session")
def prototype(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the laboratory prototype, its plugin built."""
    given = os.environ.get("MFN_VIRTUAL_ARM")
    if not given:
        pytest.skip("MFN_VIRTUAL_ARM does not name the folder of the prototype")
    folder = tmp_path_factory.mktemp("prototype")
    for name in ("bbcount.c", "vcycles.py", "inorder.py"):
        shutil.copy(Path(given, name), folder)
    options = ("-O2", "-shared", "-fPIC", "-w")
    stub.succeed("cc", *options, folder / "bbcount.c", "-o", folder / "bbcount.so")
    return folder
