"""Results for the tests: a complete one with plausible numbers, and the least there can be."""

from __future__ import annotations

import math

from mfn_compile.device_result import DeviceResult, KernelCost, Milliseconds, Peaks
from mfn_compile.knob_result import PIXELS, KnobSearch, KnobTrial, OpenVinoUse, Ratio
from mfn_compile.model.preprocessing import Preprocessing
from mfn_compile.results import (
    AllPairs,
    BackendResult,
    CalibrationInfo,
    CheckpointInfo,
    CosineStats,
    Environment,
    Evaluation,
    ExportResult,
    Gate,
    Gates,
    InputFile,
    Latency,
    LayerError,
    PairedTest,
    Parity,
    Precision,
    QatInfo,
    QatStep,
    QuantizeCandidate,
    QuantizeResult,
    Result,
    Roc,
    Size,
    TargetInfo,
    Verification,
)

SHA = {name: (letter * 64) for name, letter in zip(("a", "b", "c", "d", "e"), "abcde", strict=True)}


def _roc(points: int, lowest: float, shift: float) -> Roc:
    far = [10 ** (lowest * (1 - i / (points - 1))) for i in range(points)]
    tar = [1 - (0.02 + shift) * f ** (-0.22) if f < 0.5 else 1.0 for f in far]
    return Roc(far=tuple(far), tar=tuple(max(0.0, round(t, 6)) for t in tar))


def _verification(accuracy: float, *, shift: float) -> Verification:
    return Verification(
        accuracy=accuracy,
        accuracy_std=0.4123,
        accuracy_flip=accuracy + 0.1,
        accuracy_flip_std=0.3911,
        tar_at_far={"1e-3": 98.0 - shift, "1e-4": 95.8 - 2 * shift},
        tar_at_far_flip={"1e-3": 98.2667 - shift, "1e-4": 96.1 - 2 * shift},
        eer=0.8 + shift / 10,
        auc=0.99871 - shift / 1e4,
        threshold=0.3126 - shift / 100,
        roc=_roc(60, -3.5, shift / 100),
    )


def evaluation() -> Evaluation:
    """LFW with all pairs."""
    histogram = [0, 0, 1, 0, 2, 3, 5, 9, 14, 30, 61, 120, 260, 520, 1010, 1900, 2600, 1101, 65, 0]
    return Evaluation(
        protocol="10-fold cross-validation in the manner of LFW View 2",
        dataset="LFW",
        dataset_sha256=SHA["d"],
        pairs=6000,
        images=sum(histogram),
        fp32=_verification(99.2333, shift=0.0),
        int8=_verification(99.2, shift=0.1),
        drop=99.2333 - 99.2,
        accuracy_at_fp32_threshold=99.2167,
        cosine=CosineStats(
            mean=0.997312,
            p01=0.991204,
            min=0.981873,
            histogram=tuple(histogram),
            histogram_edges=tuple(0.98 + 0.001 * i for i in range(len(histogram) + 1)),
        ),
        paired=PairedTest(
            flipped=8,
            lost=5,
            gained=3,
            mcnemar_p=0.7265625,
            bootstrap_low=-0.0667,
            bootstrap_high=0.1167,
            bootstrap_samples=10000,
        ),
        all_pairs=AllPairs(
            images=13233,
            genuine=242257,
            impostor=87308271,
            fp32_tar_at_far={"1e-3": 97.81, "1e-4": 95.22, "1e-5": 90.37, "1e-6": 81.94},
            int8_tar_at_far={"1e-3": 97.74, "1e-4": 95.01, "1e-5": 89.98, "1e-6": 81.02},
            fp32_roc=_roc(120, -6, 0.0),
            int8_roc=_roc(120, -6, 0.002),
        ),
    )


def _layers() -> tuple[LayerError, ...]:
    found = []
    for i in range(51):
        depthwise = i % 3 == 1
        sqnr = 31 - 12 * i / 50 + 4 * math.sin(2.3 * i) - (6 if depthwise else 0)
        name = f"/features/block_{i // 3}/conv_{'dw' if depthwise else 'pw'}_{i % 3}/Conv"
        found.append(
            LayerError(
                name=name,
                op="depthwise convolution" if depthwise else "convolution",
                precision="float" if i == 49 else "int8",
                sqnr_db=sqnr,
                cosine=1 - 0.5 * 10 ** (-sqnr / 10),
            )
        )
    return tuple(found)


def _quantization() -> QuantizeResult:
    history = tuple(
        QatStep(
            step=step,
            loss=0.004 * math.exp(-step / 80) + 0.0011,
            held_out_cosine=None if step % 100 else 0.9971 + 0.0004 * step / 200,
        )
        for step in range(0, 201, 50)
    )
    return QuantizeResult(
        file="model.int8.qdq.onnx",
        sha256=SHA["c"],
        bytes=1_214_733,
        recipe="default",
        overflow_fix="first_layer_only",
        grid="free",
        method="qat",
        candidates=(
            QuantizeCandidate(method="ptq", held_out_cosine=0.997104, held_out_min_cosine=0.988412),
            QuantizeCandidate(method="qat", held_out_cosine=0.997525, held_out_min_cosine=0.990017),
        ),
        held_out_images=256,
        calibration=CalibrationInfo(
            source="LFW development images",
            images=300,
            sha256=SHA["e"],
            shared_images=0,
            shared_identities=41,
        ),
        quantized_convolutions=50,
        float_convolutions=("/features/block_16/conv_dw_1/Conv",),
        per_channel_activations=17,
        layers=_layers(),
        qat=QatInfo(steps=200, batch_size=32, learning_rate=1e-5, images=4038, history=history),
    )


def _latency() -> Latency:
    return Latency(
        kind="measured",
        device="Intel(R) Xeon(R) CPU @ 2.20GHz",
        cpu_flags=("avx2", "avx512f"),
        runtime="OpenVINO 2026.4.1",
        threads=1,
        input=PIXELS,
        repeats=200,
        p50_ms=4.412,
        p90_ms=4.631,
        p99_ms=5.204,
        fp32_p50_ms=6.387,
        fp32_p90_ms=6.702,
        fp32_p99_ms=7.95,
        speedup=1.447,
    )


def _ratio(value: float) -> Ratio:
    return Ratio(value=value, low=value - 0.021, high=value + 0.0234)


def _knobs() -> KnobSearch:
    return KnobSearch(
        noise=1.0234,
        control=_ratio(1.0),
        images=32,
        cosine=0.997312,
        trials=(
            KnobTrial(
                name="uint8 pixels in, normalized inside",
                change={"input": PIXELS},
                ratio=_ratio(1.121),
                inference=1.004,
                again=_ratio(1.118),
                rounds=30,
                same_bits=True,
                cosine=0.997312,
                outcome="kept",
            ),
            KnobTrial(
                name="float layers in bf16",
                change={"INFERENCE_PRECISION_HINT": "bf16"},
                ratio=_ratio(1.002),
                inference=1.001,
                rounds=15,
                same_bits=False,
                cosine=0.99729,
                outcome="within the noise",
            ),
            KnobTrial(
                name="one stream a thread",
                change={"NUM_STREAMS": "2"},
                outcome="refused by OpenVINO",
            ),
        ),
        untried=("stem.conv in float32",),
        gain=_ratio(1.119),
        gain_inference=1.002,
    )


def _use() -> OpenVinoUse:
    properties = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": "1"}
    return OpenVinoUse(properties=properties, input=PIXELS)


def complete() -> Result:
    """Every part of a result is there, and both budgets are met."""
    result = minimal()
    return result.model_copy(
        update={
            "quantization": _quantization(),
            "backend": BackendResult(
                files=("model.xml", "model.bin"),
                precision=Precision(
                    int8_layers=50,
                    float_layers=("/features/block_16/conv_dw_1/Conv: f32",),
                    other_layers={"Reorder": 2, "FullyConnected": 1, "Eltwise": 3},
                ),
                judge_cosine=0.999412,
                judge_min_cosine=0.997708,
                judge_images=256,
                openvino=_use(),
                knobs=_knobs(),
            ),
            "evaluation": evaluation(),
            "latency": _latency(),
            "gates": Gates(
                drop=Gate(passed=True, limit=0.2, value=0.0333, text="drop 0.033 of 0.2 points"),
                latency=Gate(passed=True, limit=18, value=4.412, text="4.41 ms of 18 ms"),
            ),
            "notes": ("This CPU has no VNNI: INT8 gains less here than on a newer one.",),
        }
    )


def demo() -> Result:
    """The demo model on rendered faces, with both budgets missed."""
    result = complete()
    assert result.evaluation is not None
    return result.model_copy(
        update={
            "checkpoint": result.checkpoint.model_copy(update={"name": "demo", "demo": True}),
            "evaluation": result.evaluation.model_copy(
                update={
                    "rendered": True,
                    "dataset": "rendered faces",
                    "protocol": "10-fold cross-validation on rendered identities",
                    "all_pairs": None,
                }
            ),
            "gates": Gates(
                drop=Gate(passed=False, limit=0.01, value=0.0333, text="drop 0.033 of 0.01"),
                latency=Gate(passed=False, limit=4, value=4.412, text="4.41 ms of 4 ms"),
            ),
        }
    )


def _kernel(kernel: str, share: float, **more: object) -> KernelCost:
    return KernelCost.model_validate(
        {"kernel": kernel, "in_library": True, "layers": 4, "calls": 4, "share": share, **more}
    )


def device() -> DeviceResult:
    """A modelled board: two kernels that multiply, one that memory bounds, one that copies."""
    kernels = (
        _kernel(
            "gemm_784x128x64_i8",
            0.6,
            cycles=24e6,
            instructions=40_000_000,
            macs=150_000_000,
            macs_per_cycle=6.25,
            of_peak=0.78,
            l1_misses=20_000,
            l2_misses=400,
            bytes_moved=1_280_000,
            memory_bytes=25_600,
            memory_cycles=90_240.0,
            bound="compute",
            code_bytes=692,
        ),
        _kernel(
            "depthwise_7x7x512",
            0.38,
            cycles=15.2e6,
            instructions=20_000_000,
            macs=50_000_000,
            macs_per_cycle=3.29,
            of_peak=0.41,
            l1_misses=900_000,
            l2_misses=800_000,
            bytes_moved=57_600_000,
            memory_bytes=51_200_000,
            memory_cycles=20.9e6,
            bound="memory",
            code_bytes=5_504,
        ),
        _kernel("memcpy", 0.02, in_library=False, cycles=0.8e6, instructions=1_000_000),
    )
    return DeviceResult(
        device="virtual:raspberry-pi-4",
        kind="modelled",
        title="Raspberry Pi 4, Cortex-A72 1.8 GHz",
        core="cortex-a72",
        clock_ghz=1.8,
        variant="neon",
        model="llvm-mca 19.1.7 cortex-a57",
        cycles=40e6,
        instructions=61_000_000,
        accesses=9_000_000,
        l1_misses=920_000,
        l2_misses=800_400,
        macs=200_000_000,
        macs_per_cycle=5.0,
        milliseconds=Milliseconds(value=17.2, low=14.2, high=20.8),
        peaks=Peaks(macs_per_cycle=8, l2_bytes_per_cycle=16, memory_bytes_per_cycle=2.5),
        kernels=kernels,
        warnings=("The calibration is a fit.",),
    )


def on_board() -> Result:
    """An artifact whose time was modelled for a board, and may keep to its budget or not."""
    result = complete()
    assert result.backend is not None
    return result.model_copy(
        update={
            "target": "raspberry-pi-4",
            "backend": result.backend.model_copy(update={"openvino": None, "knobs": None}),
            "latency": None,
            "device": device(),
            "gates": Gates(
                latency=Gate(passed=True, limit=18, value=17.2, text="...", chance="uncertain")
            ),
            "notes": device().warnings,
        }
    )


def minimal() -> Result:
    """Quantized only: no backend, no evaluation, no latency, no budgets."""
    full = _quantization()
    return Result(
        version="0.1.0",
        target="intel",
        target_details=TargetInfo(
            name="intel",
            description="64-bit Intel CPU, instruction set of the machine at hand",
            backend="openvino",
            overflow_fix="enable",
            threads=1,
            latency_budget_ms=18,
        ),
        checkpoint=CheckpointInfo(
            name="foamliu_mobilefacenet.safetensors",
            sha256=SHA["a"],
            layout="foamliu",
            parameters=999_936,
            macs=221_012_480,
            embedding_width=128,
            activations=("ReLU", "ReLU6"),
            preprocessing=Preprocessing(
                height=112,
                width=112,
                mean=(123.675, 116.28, 103.53),
                std=(58.395, 57.12, 57.375),
            ),
        ),
        export=ExportResult(
            file="model.fp32.onnx",
            sha256=SHA["b"],
            bytes=4_012_345,
            opset=17,
            dynamic_batch=False,
            convolutions=51,
            parity=Parity(
                inputs=("random", "faces"),
                max_abs_difference=4.1e-6,
                max_relative_difference=2.2e-6,
                tolerance=1e-4,
            ),
        ),
        quantization=full.model_copy(
            update={
                "method": "ptq",
                "candidates": full.candidates[:1],
                "layers": (),
                "qat": None,
                "float_convolutions": (),
            }
        ),
        size=Size(model=1_214_733, fp32_model=4_012_345),
        gates=Gates(),
        environment=Environment(
            machine="x86_64 Linux 6.1",
            cpu="Intel(R) Xeon(R) CPU @ 2.20GHz",
            cores=2,
            python="3.11.7",
            packages={"openvino": "2026.4.1", "nncf": "3.4.0", "torch": "2.13.0+cpu"},
        ),
        inputs=(
            InputFile(role="checkpoint", name="foamliu_mobilefacenet.safetensors", sha256=SHA["a"]),
            InputFile(role="recipe", name="default.toml", sha256=SHA["b"]),
            InputFile(role="evaluation", name="lfw_home", sha256=SHA["d"]),
        ),
    )
