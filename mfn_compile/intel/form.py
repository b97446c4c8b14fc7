"""A plan made real, several times over, and two of them timed in turns."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from mfn_compile.intel.interface import feed, interface_of
from mfn_compile.intel.noise import ratio
from mfn_compile.intel.plan import Plan
from mfn_compile.intel.runtime import clone, compile_model
from mfn_compile.knob_result import Ratio
from mfn_compile.model.preprocessing import Preprocessing

INSTANCES = 3  # of each side: where its memory happens to lie makes one per cent
ROUNDS = 5  # of every instance
BURST_SECONDS = 0.008  # of one burst of images
MOST_IMAGES = 5
WARM_UP = 2  # images before a burst: the other side had the caches


@dataclass(frozen=True, eq=False)
class Form:
    """A plan's IR and compiled instances of it."""

    plan: Plan
    xml: Path
    device: str
    preprocessing: Preprocessing
    blob: bytes
    instances: tuple[ov.CompiledModel, ...]

    @classmethod
    def of(cls, plan: Plan, xml: Path, device: str, preprocessing: Preprocessing) -> Form:
        """Compile `xml` as the plan says.

        Raises:
            DeviceError: the device is absent, or refuses the model or a property.
        """
        blob = compile_model(xml, device, plan.properties).export_model().getvalue()
        return cls(plan, xml, device, preprocessing, blob, ()).renewed()

    def renewed(self) -> Form:
        """The same on instances of its own."""
        properties = self.plan.properties
        made = tuple(clone(self.blob, self.device, properties) for _ in range(INSTANCES))
        return replace(self, instances=made)

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 RGB crops [N, 112, 112, 3] to embeddings [N, D], as timed: one after the other."""
        compiled = self.instances[0]
        request = compiled.create_infer_request()
        tensors = feed(crops, interface_of(compiled), self.preprocessing)
        rows = []
        for tensor in tensors:
            request.infer({0: tensor[None]})
            rows.append(request.get_output_tensor(0).data[0].astype(np.float32))
        return np.stack(rows)


@dataclass(frozen=True)
class Contest:
    """Time of the first against that of the second."""

    pixels: Ratio  # from uint8 pixels to the embedding
    inference: float  # the same of the time inside of OpenVINO alone


def contest(before: Form, after: Form, crop: NDArray[np.uint8]) -> Contest:
    """Time `before` and `after` in turns, A B B A and B A A B, on one crop [1, 112, 112, 3]."""
    times = np.empty((2, INSTANCES * ROUNDS, 2))  # of whom, round, what: whole path, inference
    for i in range(INSTANCES):
        sides = [_Side(form, i, crop) for form in (before, after)]
        images = _images(sides[0])
        for j in range(ROUNDS):
            number = i * ROUNDS + j
            order = (0, 1, 1, 0) if number % 2 == 0 else (1, 0, 0, 1)
            bursts: list[list[NDArray[np.float64]]] = [[], []]
            for side in order:
                bursts[side].append(sides[side].burst(images))
            times[:, number] = np.min(bursts, axis=1)
    whole, inside = times[..., 0], times[..., 1]
    return Contest(ratio(whole[0], whole[1]), float(np.median(inside[0] / inside[1])))


class _Side:
    def __init__(self, form: Form, instance: int, crop: NDArray[np.uint8]) -> None:
        compiled = form.instances[instance]
        self._crop, self._preprocessing = crop, form.preprocessing
        self._interface = interface_of(compiled)
        self._request = compiled.create_infer_request()

    def once(self) -> tuple[float, float]:
        """Seconds of one image: from pixels on, and inside of OpenVINO."""
        start = time.perf_counter()
        tensor = feed(self._crop, self._interface, self._preprocessing)
        fed = time.perf_counter()
        self._request.infer({0: tensor}, share_inputs=True)
        end = time.perf_counter()
        return end - start, end - fed

    def burst(self, images: int) -> NDArray[np.float64]:
        """Least seconds of some images in a row: from pixels on, and inside of OpenVINO.

        The least, since other processes can only add to a time.
        """
        for _ in range(WARM_UP):
            self.once()
        found: NDArray[np.float64] = np.min([self.once() for _ in range(images)], axis=0)
        return found


def _images(side: _Side) -> int:
    seconds = min(side.once()[0] for _ in range(1 + WARM_UP))
    return int(np.clip(BURST_SECONDS / seconds, 1, MOST_IMAGES))
