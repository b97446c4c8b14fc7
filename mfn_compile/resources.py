"""Where the data folders targets/ and calib/ are: inside the wheel, or beside the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def data_dir(name: str) -> Path:
    """Folder `name` ("targets" or "calib") of the installed package or of the source checkout.

    Raises:
        FileNotFoundError: the installation carries neither.
    """
    package = Path(str(files("mfn_compile")))
    for folder in (package / "data" / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"the data folder {name!r} is missing from this installation")


def demo_checkpoint() -> Path:
    """The demo model on rendered faces that ships with the package."""
    return Path(str(files("mfn_compile"))) / "demo" / "mobilefacenet_demo.safetensors"
