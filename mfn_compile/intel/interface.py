"""What a network takes: float planes, float pixels, or the uint8 pixels of a crop."""

from __future__ import annotations

from typing import Literal

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino.preprocess import PrePostProcessor

from mfn_compile.knob_result import PIXELS, PLANES, ROWS, InputForm
from mfn_compile.model.preprocessing import Preprocessing

Interface = Literal["planes", "rows", "pixels"]
CHANNELS = 3
INPUTS: dict[Interface, InputForm] = {"planes": PLANES, "rows": ROWS, "pixels": PIXELS}


def set_interface(model: ov.Model, interface: Interface, preprocessing: Preprocessing) -> ov.Model:
    """Put the steps from `interface` to float32 [1, 3, H, W] in front of `model`.

    `planes` is the network as it is, `rows` takes normalized float32 [1, H, W, 3], and `pixels`
    takes uint8 RGB [1, H, W, 3] and normalizes it itself: (pixel - mean) / std in float32.
    """
    if interface == "planes":
        return model
    steps = PrePostProcessor(model)
    tensor = steps.input().tensor().set_layout(ov.Layout("NHWC"))
    steps.input().model().set_layout(ov.Layout("NCHW"))
    if interface == "pixels":
        tensor.set_element_type(ov.Type.u8)
        convert = steps.input().preprocess().convert_element_type(ov.Type.f32)
        if preprocessing.color == "BGR":
            convert = convert.reverse_channels()
        convert.mean(list(preprocessing.mean)).scale(list(preprocessing.std))
    return steps.build()


def interface_of(model: ov.Model | ov.CompiledModel) -> Interface:
    """What `model` takes, read from the type and shape of its input."""
    found = model.input(0)
    if found.get_element_type() == ov.Type.u8:
        return "pixels"
    return "planes" if found.get_partial_shape()[1] == CHANNELS else "rows"


def feed(
    crops: NDArray[np.uint8], interface: Interface, preprocessing: Preprocessing
) -> NDArray[np.uint8] | NDArray[np.float32]:
    """uint8 RGB crops [N, 112, 112, 3] as a network of that interface takes them."""
    if interface == "pixels":
        return np.ascontiguousarray(preprocessing.crop(crops))
    planes = preprocessing.apply(crops)
    return planes if interface == "planes" else np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
