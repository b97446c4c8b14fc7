"""Quantized networks that several files share: a tiny random one, and the real checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mfn_compile.arm.graph import IntegerGraph
from mfn_compile.arm.reader import read_graph
from mfn_compile.export.exporter import export
from mfn_compile.model.loader import load_checkpoint
from mfn_compile.progress import SilentProgress
from mfn_compile.quantize.calibration import CalibrationData
from mfn_compile.quantize.quantizer import QuantizeJob, quantize
from mfn_compile.recipe import CalibrationPlan, Recipe
from tests.tiny import tiny_checkpoint

CALIBRATION, HELD_OUT = 24, 16  # enough to get every range right, not to be accurate
CHECKPOINTS = ("foamliu_mobilefacenet", "xiaoccer_068")


@dataclass(frozen=True, eq=False)
class Quantized:
    """A network as integers, and uint8 RGB faces [N, H, W, 3] of its size."""

    graph: IntegerGraph
    faces: NDArray[np.uint8]


def quantized(checkpoint: Path, crops: NDArray[np.uint8], folder: Path) -> Quantized:
    """Export and quantize with few images; `crops` uint8 RGB [N, 112, 112, 3]."""
    loaded = load_checkpoint(checkpoint)
    preprocessing = loaded.info.preprocessing
    plan = CalibrationPlan(images=CALIBRATION, held_out=HELD_OUT)
    job = QuantizeJob(
        fp32_onnx=folder / export(loaded, folder).file,
        recipe=Recipe(name="short", description="", calibration=plan),
        overflow_fix="disable",
        grid="free",
        preprocessing=preprocessing,
        calibration=CalibrationData(crops[:CALIBRATION], "tests"),
        held_out=crops[CALIBRATION : CALIBRATION + HELD_OUT],
    )
    file = quantize(job, folder, SilentProgress()).file
    return Quantized(read_graph(folder / file, preprocessing), preprocessing.crop(crops))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Quantized:
    """Seventeen convolutions on 32x32 pixels."""
    from mfn_compile.demo.faces import render

    folder = tmp_path_factory.mktemp("tiny_integers")
    crops = render(np.arange(64), np.zeros(64, int))
    return quantized(tiny_checkpoint(folder / "tiny.safetensors", size=32), crops, folder)


@pytest.fixture(scope="session", params=CHECKPOINTS)
def real(
    request: pytest.FixtureRequest,
    data: Path,
    lfw_home: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Quantized:
    """A published checkpoint and faces of LFW."""
    from mfn_compile.evaluate.lfw import open_lfw

    images = open_lfw(lfw_home).images
    crops = images.crops(images.split("calib")[:64])
    checkpoint = data / "weights" / f"{request.param}.safetensors"
    return quantized(checkpoint, crops, tmp_path_factory.mktemp(request.param))
