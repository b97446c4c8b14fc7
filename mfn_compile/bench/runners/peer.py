"""Runs a model with one peer's Python package; needs that and numpy only.

It is started by that package's own Python: this machine's, or the AArch64 one on the virtual
board, and so imports nothing of mfn_compile.

    peer.py JOB.json count IN.npy OUT.npy  run the first twice, count the second (blocks.c)
    peer.py JOB.json embed IN.npy OUT.npy  embed many
    peer.py JOB.json memory IN.npy         growth of the resident set from import to second run
    peer.py JOB.json serve IN.npy          a line "N" on stdin times N runs

JOB.json holds engine, precision, files, input, output and shape (NCHW). Input is float32
[N, 3, height, width]; everything runs on one thread. An engine's prepare() is not
counted or timed: it puts an image into the layout and type that the converter left the model with.
"""

import ctypes
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
GETPID, MAGIC = 172, 0x4D464E42  # the virtual board's markers for programs in Python


class Engine:
    """What all have in common."""

    def prepare(self, image: Array) -> Array:
        """The image as `run` takes it."""
        return image

    def run(self, image: Array) -> Array:
        """One inference on [3, height, width]."""
        raise NotImplementedError


class Ncnn(Engine):
    """ncnn: .param and .bin; half precision is a run-time option."""

    def __init__(self, job: dict[str, Any]) -> None:
        import ncnn  # type: ignore[import-not-found]  # noqa: PLC0415 - only this engine is here

        self._mat, self._input, self._output = ncnn.Mat, job["input"], job["output"]
        self._net = ncnn.Net()
        options, half = self._net.opt, job["precision"] == "f16"
        options.num_threads, options.use_vulkan_compute = 1, False
        options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = half
        options.use_bf16_storage = False
        self._net.load_param(job["files"][0])
        self._net.load_model(job["files"][1])

    def run(self, image: Array) -> Array:
        """One inference on [3, height, width]."""
        extractor = self._net.create_extractor()
        extractor.input(self._input, self._mat(image))
        _, found = extractor.extract(self._output)
        return np.array(found, np.float32)


class OnnxRuntime(Engine):
    """ONNX Runtime: .onnx; half precision is another model."""

    def __init__(self, job: dict[str, Any]) -> None:
        import onnxruntime  # noqa: PLC0415 - only this engine is here

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            job["files"][0], options, providers=["CPUExecutionProvider"]
        )
        self._name = self._session.get_inputs()[0].name

    def run(self, image: Array) -> Array:
        """One inference on [3, height, width]."""
        return np.asarray(self._session.run(None, {self._name: image[None]})[0], np.float32)


class LiteRt(Engine):
    """LiteRT with XNNPACK: .tflite, channels last or as the converter left them."""

    def __init__(self, job: dict[str, Any]) -> None:
        from ai_edge_litert.interpreter import (  # type: ignore[import-not-found]  # noqa: PLC0415
            Interpreter,
        )

        self._interpreter = Interpreter(job["files"][0], num_threads=1)
        self._interpreter.allocate_tensors()
        self._image = self._interpreter.get_input_details()[0]
        self._found = self._interpreter.get_output_details()[0]

    def prepare(self, image: Array) -> Array:
        """Channels last, and int8 where the model takes that."""
        shown = image.transpose(1, 2, 0) if self._image["shape"][-1] == 3 else image
        if self._image["dtype"] == np.int8:
            scale, zero = self._image["quantization"]
            shown = np.clip(np.rint(shown / scale) + zero, -128, 127).astype(np.int8)
        return np.ascontiguousarray(shown)[None]

    def run(self, image: Array) -> Array:
        """One inference."""
        self._interpreter.set_tensor(self._image["index"], image)
        self._interpreter.invoke()
        found = np.array(self._interpreter.get_tensor(self._found["index"]), np.float32)
        scale, zero = self._found["quantization"]
        return (found - zero) * scale if scale else found


class Mnn(Engine):
    """MNN: .mnn; half precision is a run-time option."""

    def __init__(self, job: dict[str, Any]) -> None:
        import MNN  # type: ignore[import-not-found]  # noqa: PLC0415 - only this engine is here

        self._mnn = MNN
        self._net = MNN.Interpreter(job["files"][0])
        precision = "low" if job["precision"] == "f16" else "high"
        self._session = self._net.createSession(
            {"backend": "CPU", "numThread": 1, "precision": precision}
        )
        self._image = self._net.getSessionInput(self._session)
        self._shape = (1, *job["shape"])

    def run(self, image: Array) -> Array:
        """One inference on [3, height, width]."""
        mnn = self._mnn
        kind, order = mnn.Halide_Type_Float, mnn.Tensor_DimensionType_Caffe
        self._image.copyFrom(mnn.Tensor(self._shape, kind, image[None].copy(), order))
        self._net.runSession(self._session)
        found = self._net.getSessionOutput(self._session)
        shape = found.getShape()
        host = mnn.Tensor(shape, kind, np.zeros(shape, np.float32), order)
        found.copyToHostTensor(host)
        return np.array(host.getData(), np.float32)


class OpenVino(Engine):
    """OpenVINO: .xml; half precision is a hint."""

    def __init__(self, job: dict[str, Any]) -> None:
        import openvino  # noqa: PLC0415 - only this engine is here

        settings = {
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f16" if job["precision"] == "f16" else "f32",
        }
        compiled = openvino.Core().compile_model(job["files"][0], "CPU", settings)
        self._request = compiled.create_infer_request()

    def run(self, image: Array) -> Array:
        """One inference on [3, height, width]."""
        self._request.infer({0: image[None]})
        return np.array(self._request.get_output_tensor(0).data, np.float32)


ENGINES: dict[str, Any] = {
    "ncnn": Ncnn,
    "onnxruntime": OnnxRuntime,
    "litert": LiteRt,
    "mnn": Mnn,
    "openvino": OpenVino,
}


def resident(name: str) -> int:
    """Bytes of this process by the kernel's name: VmRSS now, VmHWM at most."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def busy() -> tuple[int, int]:
    """Nanoseconds of processor time that this thread, and that all others, have used."""
    own = str(threading.get_native_id())
    used = {
        path.name: int((path / "schedstat").read_text(encoding="ascii").split()[0])
        for path in Path("/proc/self/task").iterdir()
    }
    return used.get(own, 0), sum(time for name, time in used.items() if name != own)


def count(engine: Engine, images: list[Array], place: str) -> None:
    """Run the first image twice, with the markers around the second run."""
    call = ctypes.CDLL(None).syscall
    engine.run(images[0])
    before = busy()
    call(GETPID, ctypes.c_long(MAGIC), ctypes.c_long(1))
    found = engine.run(images[0])
    call(GETPID, ctypes.c_long(MAGIC), ctypes.c_long(0))
    after = busy()
    own, others = after[0] - before[0], after[1] - before[1]
    np.savez(place, embeddings=np.ravel(found)[None], busy=np.array([own, others]))


def embed(engine: Engine, images: list[Array], place: str) -> None:
    """Embed many images into a file."""
    np.save(place, np.stack([np.ravel(engine.run(image)) for image in images]))


def serve(engine: Engine, images: list[Array]) -> None:
    """Time runs as often as it is asked."""
    engine.run(images[0])
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            engine.run(images[0])
        print((time.perf_counter() - start) / int(line), flush=True)


def main(job_file: str, mode: str, source: str, *rest: str) -> None:
    """Do one job."""
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    crops = np.load(source)
    before = resident("VmRSS")
    engine: Engine = ENGINES[job["engine"]](job)
    images = [engine.prepare(image) for image in crops]
    if mode == "memory":
        engine.run(images[0])
        engine.run(images[0])
        print(resident("VmHWM") - before, flush=True)
    elif mode == "serve":
        serve(engine, images)
    else:
        {"count": count, "embed": embed}[mode](engine, images, *rest)


if __name__ == "__main__":
    main(*sys.argv[1:])
