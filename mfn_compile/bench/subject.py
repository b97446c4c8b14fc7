"""What every engine is given: one float network, crops to calibrate and to judge on."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfn_compile.bench.environments import bench_folder
from mfn_compile.files import write_whole
from mfn_compile.hashing import file_sha256, value_sha256
from mfn_compile.material import Material
from mfn_compile.model.preprocessing import Preprocessing
from mfn_compile.onnx_session import open_session

PROBES = 16  # held-out crops that an embedding is judged on
COUNTED_PROBES = 3  # of them, for the virtual board


@dataclass(frozen=True)
class Subject:
    """A network and its inputs, as files.

    Attributes:
        folder: where the files are, and what is made from them.
        key: content key of all of it.
        onnx: float network, input float32 [1, 3, height, width], already normalized.
    """

    name: str
    folder: Path
    key: str
    onnx: Path
    preprocessing: Preprocessing
    input: str
    output: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return 3, self.preprocessing.height, self.preprocessing.width

    def file(self, name: str) -> Path:
        """calibration.npy, pixels.npy (uint8 of the same), probes.npy, counted.npy."""
        return self.folder / f"{name}.npy"

    def reference(self) -> NDArray[np.float32]:
        """Embeddings of the probes by the float network in ONNX Runtime, unoptimized."""
        found: NDArray[np.float32] = np.load(self.file("reference"))
        return found


def make_subject(
    name: str, onnx: Path, preprocessing: Preprocessing, material: Material
) -> Subject:
    """Write the files, once for the same network and crops.

    Raises:
        BadInputError: an image cannot be used.
        DeviceError: the files cannot be written.
    """
    parts = (file_sha256(onnx), material.calibration.digest(), material.held_out.digest())
    key = value_sha256([*parts, preprocessing.model_dump(mode="json"), PROBES, COUNTED_PROBES])
    folder = bench_folder() / "subjects" / key[:24]
    model = folder / "float.onnx"
    session = open_session(onnx, optimized=False, threads=1)
    names = session.get_inputs()[0].name, session.get_outputs()[0].name
    subject = Subject(name, folder, key, model, preprocessing, *names)
    if not subject.file("reference").exists():
        crops = material.calibration.crops()
        probes = preprocessing.apply(material.held_out.crops(PROBES))
        pixels = preprocessing.crop(crops)
        pixels = pixels[..., ::-1] if preprocessing.color == "BGR" else pixels
        write_whole(model, onnx.read_bytes())
        _save(subject.file("calibration"), preprocessing.apply(crops))
        _save(subject.file("pixels"), np.ascontiguousarray(pixels))
        _save(subject.file("probes"), probes)
        _save(subject.file("counted"), probes[:COUNTED_PROBES])
        found = [np.ravel(session.run(None, {names[0]: image[None]})[0]) for image in probes]
        _save(subject.file("reference"), np.stack(found))  # the last: all the others are there
    return subject


def _save(path: Path, values: NDArray[Any]) -> None:
    stream = io.BytesIO()
    np.save(stream, values)
    write_whole(path, stream.getvalue())
