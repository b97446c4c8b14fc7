"""A tiny exported network and crops for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from mfn_compile.export.exporter import export
from mfn_compile.export.fold import fold_batchnorm
from mfn_compile.model.loader import load_checkpoint
from mfn_compile.model.network import MobileFaceNet
from mfn_compile.model.preprocessing import Preprocessing
from tests.tiny import tiny_checkpoint


@dataclass(frozen=True)
class Exported:
    """A tiny network as ONNX and in torch, with crops."""

    path: Path
    module: MobileFaceNet
    preprocessing: Preprocessing
    crops: NDArray[np.uint8]

    @property
    def model(self) -> onnx.ModelProto:
        return onnx.load(self.path)

    def images(self, count: int) -> NDArray[np.float32]:
        return self.preprocessing.apply(self.crops[:count])


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    from mfn_compile.demo.faces import render

    folder = tmp_path_factory.mktemp("exported")
    loaded = load_checkpoint(tiny_checkpoint(folder / "tiny.safetensors", size=32))
    found = export(loaded, folder)
    assert loaded.module is not None
    crops = render(np.arange(64), np.zeros(64, int))
    return Exported(
        folder / found.file, fold_batchnorm(loaded.module), loaded.info.preprocessing, crops
    )
