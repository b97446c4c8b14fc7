import os
import subprocess

import pytest

from mfn_compile.bundle.manifest import BundleInfo
from mfn_compile.model.preprocessing import Preprocessing


@pytest.fixture
def info():
    return BundleInfo(
        target="intel",
        checkpoint="weights.safetensors",
        checkpoint_sha256="a" * 64,
        preprocessing=Preprocessing(
            height=112, width=96, mean=(127.5, 127.5, 127.5), std=(128.0, 128.0, 128.0)
        ),
        input="float32 [1, 3, 112, 96]",
        embedding_width=128,
        tools={"openvino": "2026.4.1", "mfn-compile": "0.1.0"},
    )


@pytest.fixture
def files(tmp_path):
    model = tmp_path / "store" / "model.xml"
    model.parent.mkdir()
    model.write_text("<net/>")
    return {"models/model.xml": model, "models/model.bin": b"\x00\x01" * 500, "report.json": b"{}"}


def _mount(folder, options):
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"this user cannot mount a tmpfs: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 128 KiB."""
    folder = tmp_path / "small"
    _mount(folder, "size=128k")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def read_only_disk(tmp_path):
    """A mounted file system that nobody can write to, root neither."""
    folder = tmp_path / "frozen"
    _mount(folder, "size=128k")
    os.mkdir(folder / "old")
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
