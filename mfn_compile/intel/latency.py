"""Time of one image, INT8 and fp32 in turns so that a drifting machine cannot favour one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from mfn_compile import environment
from mfn_compile.intel.interface import INPUTS, feed, interface_of, set_interface
from mfn_compile.intel.runtime import FLOAT32, compile_model, core, device_name
from mfn_compile.model.preprocessing import Preprocessing
from mfn_compile.progress import Progress
from mfn_compile.results import Latency
from mfn_compile.store import tool_version

WARM_UP = 20
REPEATS = 300


def measure(
    int8: Path,
    fp32: Path,
    crop: NDArray[np.uint8],
    preprocessing: Preprocessing,
    *,
    device: str,
    properties: Mapping[str, str],
    progress: Progress,
    repeats: int = REPEATS,
) -> Latency:
    """Time both IRs on one uint8 RGB `crop` [1, 112, 112, 3], A B B A, after a warm-up.

    The float network gets the INT8 artifact's interface and properties. Where that interface is
    float, the caller normalizes, and it is not in the times.

    Raises:
        DeviceError: the device is absent or refuses a model.
    """
    compiled = compile_model(int8, device, properties)
    interface = interface_of(compiled)
    image = feed(crop, interface, preprocessing)
    network = set_interface(core().read_model(str(fp32)), interface, preprocessing)
    beside = compile_model(network, device, {**properties, **FLOAT32})
    requests = [one.create_infer_request() for one in (compiled, beside)]
    times = np.empty((2, repeats))
    with progress.task("latency", WARM_UP + repeats) as task:
        for _ in range(WARM_UP):
            for request in requests:
                _time(request, image)
            task.advance()
        for index in range(repeats):
            order = (0, 1) if index % 2 == 0 else (1, 0)
            for which in order:
                times[which, index] = _time(requests[which], image)
            task.advance()
    (p50, p90, p99), (fp50, fp90, fp99) = np.percentile(times * 1e3, (50, 90, 99), axis=1).T
    return Latency(
        kind="measured",
        device=device_name(device),
        cpu_flags=environment.relevant_flags(),
        runtime=f"OpenVINO {tool_version('openvino')}",
        threads=int(properties["INFERENCE_NUM_THREADS"]),
        input=INPUTS[interface],
        repeats=repeats,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        fp32_p50_ms=fp50,
        fp32_p90_ms=fp90,
        fp32_p99_ms=fp99,
        speedup=float(np.median(times[1] / times[0])),
    )


def _time(request: ov.InferRequest, image: NDArray[np.uint8] | NDArray[np.float32]) -> float:
    start = time.perf_counter()
    request.infer({0: image}, share_inputs=True)
    return time.perf_counter() - start
