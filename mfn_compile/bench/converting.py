"""A peer's own model file from the float network, made by the peer's own tools and kept."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from mfn_compile.arm.firmware.process import run_tool
from mfn_compile.bench.environments import host_python
from mfn_compile.bench.peers import Peer, Variant
from mfn_compile.bench.subject import Subject
from mfn_compile.errors import DeviceError
from mfn_compile.hashing import file_sha256, value_sha256

SCRIPTS = Path(__file__).parent / "convert"
CONVERT_SECONDS = 1800.0
IMAGES = 300  # calibration crops, at most
JOB, FOUND = "job.json", "found.json"


@dataclass(frozen=True)
class Converted:
    """A peer's model.

    Attributes:
        job: the JSON file that runners/peer.py takes.
        sha256: of the model files' contents.
        bytes: their size.
        quantizer: what made it small, in the words of its script.
    """

    job: Path
    sha256: str
    bytes: int
    quantizer: str


def not_yet(peer: Peer) -> DeviceError:
    """What is missing when nothing may be run."""
    return DeviceError(f"{peer.title} did not run here yet", hint="Run without --known")


def convert(
    peer: Peer, variant: Variant, subject: Subject, *, install: bool = True, known: bool = False
) -> Converted:
    """The model of a peer, made now or found; with `known` only found.

    Raises:
        DeviceError: it was not made before, its packages are missing, or its converter or
            quantizer failed.
    """
    script = SCRIPTS / f"to_{peer.name}.py"
    pins = peer.host or peer.site
    key = value_sha256(
        [subject.key, pins, variant.precision, variant.method, file_sha256(script), IMAGES]
    )
    place = subject.folder / f"{peer.name}-{variant.precision}-{key[:12]}"
    if known and not (place / FOUND).is_file():
        raise not_yet(peer)
    subject.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{place}.lock"):
        if not (place / FOUND).is_file():
            with tempfile.TemporaryDirectory(dir=subject.folder, prefix=".new-") as aside:
                _convert(peer, variant, subject, script, Path(aside), place, install=install)
                shutil.rmtree(place, ignore_errors=True)
                os.rename(aside, place)
                Path(aside).mkdir()  # for the context manager to remove
    found = json.loads((place / FOUND).read_text(encoding="utf-8"))
    files = [Path(name) for name in found["files"]]
    return Converted(
        place / FOUND,
        value_sha256([[path.name, file_sha256(path)] for path in files]),
        sum(path.stat().st_size for path in files),
        found["quantizer"],
    )


def _convert(
    peer: Peer,
    variant: Variant,
    subject: Subject,
    script: Path,
    aside: Path,
    place: Path,
    *,
    install: bool,
) -> None:
    prep = subject.preprocessing
    job: dict[str, Any] = {
        "onnx": str(subject.onnx),
        "calibration": str(subject.file("calibration")),
        "pixels": str(subject.file("pixels")),
        "mean": prep.mean,
        "std": prep.std,
        "images": IMAGES,
        "input": subject.input,
        "output": subject.output,
        "shape": subject.shape,
        "precision": variant.precision,
        "method": variant.method,
        "out": str(aside),
    }
    (aside / JOB).write_text(json.dumps(job), encoding="utf-8")
    command = [host_python(peer, install=install), str(script), str(aside / JOB)]
    done = run_tool(command, timeout=CONVERT_SECONDS, cwd=aside)
    if done.code != 0:
        tail = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise DeviceError(
            f"{peer.title} cannot convert the network to {variant.precision}",
            where=script.name,
            why=tail[0] if tail else f"it ended with {done.code}",
            hint="Leave the peer out of --peers, or see what its own tools say",
        )
    told = json.loads(done.stdout.strip().splitlines()[-1])
    found = {
        "engine": peer.name,
        "precision": variant.precision.partition("-")[0],
        "shape": subject.shape,
        "input": told.get("input", subject.input),
        "output": told.get("output", subject.output),
        "files": [str(place / name) for name in told["files"]],
        "quantizer": told["quantizer"],
    }
    (aside / FOUND).write_text(json.dumps(found), encoding="utf-8")
