"""What stages return and what report.json holds: frozen pydantic models, one source for both.

The JSON schema of `Result` is committed as docs/report.schema.json; a test keeps them together.
"""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from mfn_compile.constant_result import ConstantChannels
from mfn_compile.device_result import Chance, DeviceResult, Ways
from mfn_compile.frozen import Frozen
from mfn_compile.knob_result import KnobSearch, OpenVinoUse
from mfn_compile.model.preprocessing import Preprocessing
from mfn_compile.schedule_result import KernelSchedule

SCHEMA: Literal["mfn-compile/report/1"] = "mfn-compile/report/1"


class CheckpointInfo(Frozen):
    """What was recognised in a checkpoint."""

    name: str
    sha256: str
    layout: str
    parameters: int
    macs: int = Field(description="multiply-adds of one image")
    embedding_width: int
    activations: tuple[str, ...]
    preprocessing: Preprocessing
    demo: bool = Field(default=False, description="the demo model on rendered faces")


class Parity(Frozen):
    """Agreement of the exported ONNX with the torch model."""

    inputs: tuple[str, ...]
    max_abs_difference: float
    max_relative_difference: float
    tolerance: float


class ExportResult(Frozen):
    """fp32 ONNX file and its evidence."""

    file: str
    sha256: str
    bytes: int
    opset: int
    dynamic_batch: bool
    convolutions: int
    parity: Parity


class LayerError(Frozen):
    """Signal-to-quantization-noise of one layer's output, QDQ against fp32."""

    name: str
    op: str
    precision: str = Field(description="int8, or float where the layer is a float island")
    sqnr_db: float
    cosine: float


class CalibrationInfo(Frozen):
    """Which images set the ranges, and whether they touch the evaluation."""

    source: str
    images: int
    sha256: str
    shared_images: int = Field(description="always 0: sharing images is an error")
    shared_identities: int | None = Field(
        default=None, description="images that show a person of the evaluation pairs"
    )


class QatStep(Frozen):
    """One logged point of the fine-tuning."""

    step: int
    loss: float
    held_out_cosine: float | None = None


class QatInfo(Frozen):
    """How the quantization-aware training went."""

    steps: int
    batch_size: int
    learning_rate: float
    images: int
    history: tuple[QatStep, ...]


class QuantizeCandidate(Frozen):
    """One quantized network, judged by its embedding cosine on held-out crops."""

    method: Literal["ptq", "qat", "given"]
    held_out_cosine: float
    held_out_min_cosine: float


class QuantizeResult(Frozen):
    """QDQ ONNX file, the one source of truth of what the INT8 network computes."""

    file: str
    sha256: str
    bytes: int
    recipe: str
    overflow_fix: Literal["disable", "first_layer_only", "enable"]
    grid: Literal["exact", "free"] = Field(
        description="exact: float32 sums of the file never round, so every executor agrees"
    )
    method: Literal["ptq", "qat", "given"]
    candidates: tuple[QuantizeCandidate, ...]
    held_out_images: int
    calibration: CalibrationInfo
    quantized_convolutions: int
    float_convolutions: tuple[str, ...]
    per_channel_activations: int
    layers: tuple[LayerError, ...]
    qat: QatInfo | None = None


class Precision(Frozen):
    """What the backend really runs, read from its execution graph."""

    int8_layers: int
    float_layers: tuple[str, ...] = Field(
        description="convolutions that do not run in i8/u8, as 'name: precision'"
    )
    other_layers: dict[str, int] = Field(description="layers that are no convolution, by type")


class CodeSize(Frozen):
    """One variant of a library."""

    variant: str
    cpu: str = Field(description="core that it was scheduled for")
    text: int = Field(description="bytes of machine code")
    rodata: int = Field(description="bytes of constants: weights and tables")
    stack: int = Field(description="worst-case bytes of stack of one call")


class PlanRow(Frozen):
    """One block of the workspace."""

    tensors: tuple[str, ...] = Field(description="several where a result takes another's place")
    offset: int
    bytes: int
    first: str = Field(description="layer that writes it first")
    last: str = Field(description="layer that reads it last")


class MemoryPlan(Frozen):
    """Where activations lie during a call."""

    peak: int = Field(description="bytes of the workspace")
    lower_bound: int = Field(description="bytes of the largest set of buffers in use at once")
    rows: tuple[PlanRow, ...]


class KernelCensus(Frozen):
    """Arithmetic instructions in a kernel's machine code, by what they do."""

    kernel: str
    variant: str
    kind: str = Field(description="dense-int8, depthwise-int8 or float")
    layers: int = Field(description="how many layers call it")
    dot: int = Field(description="sdot: 16 int8 products each")
    matrix: int = Field(default=0, description="smmla: 32 int8 products each")
    widening: int = Field(description="smull, smlal")
    pairwise: int = Field(description="sadalp")
    multiply: int = Field(description="mla, mul on integer vectors")
    float_multiply_add: int = Field(description="fmla, fmadd; in an int8 kernel: its scaling")
    float_multiply: int = Field(description="fmul: the requantization")
    instructions: int


class CpuProof(Frozen):
    """A CPU on which every bit of every golden vector was right."""

    cpu: str
    emulated: bool
    variants: tuple[str, ...]
    vectors: int


class OracleAgreement(Frozen):
    """The integer network against ONNX Runtime's run of the QDQ file, value by value."""

    images: int
    values: int = Field(description="int8 values of all tensors and images")
    differing: int = Field(description="of these, how many differ, each run from the image on")
    differing_by_layer: int = Field(
        description="how many differ when every layer is given ONNX Runtime's own inputs"
    )
    largest: int = Field(description="largest difference by layer")
    min_cosine: float


class Firmware(Frozen):
    """A library for firmware, and the proof of what it computes."""

    triple: str
    archive_bytes: int
    shared_library: str = Field(description="what linked lib/libmfn.so; empty: there is none")
    variants: tuple[CodeSize, ...]
    stack: int = Field(description="worst-case bytes of stack of any call, choosing included")
    plan: MemoryPlan
    constant: ConstantChannels | None = Field(
        default=None, description="channels that were left out; None where there are none"
    )
    census: tuple[KernelCensus, ...]
    schedules: tuple[KernelSchedule, ...] = Field(
        default=(), description="of the kernels that have something to choose"
    )
    agreement: OracleAgreement
    proofs: tuple[CpuProof, ...]
    unproven: str = Field(default="", description="what could not be run here, and why")
    openvino_cosine: float = Field(
        description="mean cosine of the embeddings to OpenVINO's run of the same QDQ file here"
    )
    openvino_min_cosine: float


class BackendResult(Frozen):
    """Compiled artifact of a backend."""

    files: tuple[str, ...]
    precision: Precision
    judge_cosine: float = Field(
        description="mean cosine of the backend's INT8 embeddings to ONNX Runtime's run of the "
        "QDQ file without graph optimizations"
    )
    judge_min_cosine: float
    judge_images: int
    firmware: Firmware | None = None
    openvino: OpenVinoUse | None = Field(default=None, description="how to run an OpenVINO IR")
    knobs: KnobSearch | None = Field(default=None, description="where settings were searched")


class Latency(Frozen):
    """Time of one image; says what it is, where it was taken, and against what."""

    kind: Literal["measured"]
    device: str
    cpu_flags: tuple[str, ...]
    runtime: str
    threads: int
    input: str = Field(
        default="float32 [1, 3, height, width]",
        description="what both networks took; normalization counts where that is uint8",
    )
    repeats: int = Field(description="runs of each network, fp32 and INT8 in turn")
    p50_ms: float = Field(description="median time of one image, INT8")
    p90_ms: float
    p99_ms: float
    fp32_p50_ms: float
    fp32_p90_ms: float
    fp32_p99_ms: float
    speedup: float = Field(description="median of the paired ratios fp32 / INT8")


class Size(Frozen):
    """Bytes of the artifact."""

    model: int = Field(description="the INT8 model's files")
    fp32_model: int = Field(description="the same network in fp32")
    text: int | None = Field(default=None, description="machine code")
    rodata: int | None = Field(default=None, description="constants: weights and tables")
    workspace: int | None = Field(default=None, description="scratch memory of one call")


class Roc(Frozen):
    """Points of a ROC curve for plotting: false accept rate, true accept rate."""

    far: tuple[float, ...]
    tar: tuple[float, ...]


class Verification(Frozen):
    """One model on one pairs list. Accuracies in percent, as everywhere in a report."""

    accuracy: float = Field(description="10-fold mean, no flip")
    accuracy_std: float = Field(description="standard deviation over the folds")
    accuracy_flip: float = Field(description="10-fold mean, embeddings of image and mirror summed")
    accuracy_flip_std: float
    tar_at_far: dict[str, float] = Field(description='percent, keys "1e-3" and "1e-4", no flip')
    tar_at_far_flip: dict[str, float]
    eer: float = Field(description="equal error rate, percent")
    auc: float = Field(description="area under the ROC curve, 0 to 1")
    threshold: float = Field(description="cosine threshold, mean over the folds")
    roc: Roc


class CosineStats(Frozen):
    """Embedding cosine INT8 against fp32 over all images of the pairs."""

    mean: float
    p01: float
    min: float
    histogram: tuple[int, ...]
    histogram_edges: tuple[float, ...]


class PairedTest(Frozen):
    """Pair decisions that changed, each model at its own fold thresholds."""

    flipped: int
    lost: int = Field(description="right in fp32, wrong in INT8")
    gained: int = Field(description="wrong in fp32, right in INT8")
    mcnemar_p: float = Field(description="exact two-sided binomial test")
    bootstrap_low: float = Field(
        description="95 % interval of fp32 minus INT8 accuracy, points, as `drop`"
    )
    bootstrap_high: float
    bootstrap_samples: int


class AllPairs(Frozen):
    """Every image against every other: sees what a few thousand pairs cannot."""

    images: int
    genuine: int
    impostor: int
    fp32_tar_at_far: dict[str, float] = Field(description='percent, keys "1e-3" to "1e-6"')
    int8_tar_at_far: dict[str, float]
    fp32_roc: Roc
    int8_roc: Roc


class Evaluation(Frozen):
    """Drift of INT8 against fp32 on the same crops."""

    protocol: str
    dataset: str
    dataset_sha256: str
    pairs: int
    images: int
    rendered: bool = Field(default=False, description="images are rendered, not photographs")
    fp32: Verification
    int8: Verification
    drop: float = Field(description="fp32 minus INT8 accuracy, points, no flip")
    accuracy_at_fp32_threshold: float = Field(
        description="INT8 accuracy when every fold keeps the fp32 threshold, percent"
    )
    cosine: CosineStats
    paired: PairedTest
    all_pairs: AllPairs | None = None


class Gate(Frozen):
    """One budget."""

    passed: bool
    limit: float
    value: float
    text: str
    chance: Chance | None = Field(
        default=None, description="that a modelled time keeps to the limit"
    )


class Gates(Frozen):
    """The budgets that decide the exit code."""

    drop: Gate | None = None
    latency: Gate | None = None


class TargetInfo(Frozen):
    """The target that was compiled for."""

    name: str
    description: str
    backend: str
    overflow_fix: str
    threads: int
    latency_budget_ms: float


class Environment(Frozen):
    """Where and with what this was made."""

    machine: str
    cpu: str
    cores: int
    python: str
    packages: dict[str, str]


class InputFile(Frozen):
    """One input and its content hash."""

    role: str
    name: str
    sha256: str


class Result(Frozen):
    """report.json."""

    schema_: Literal["mfn-compile/report/1"] = Field(default=SCHEMA, alias="schema")
    version: str
    target: str
    target_details: TargetInfo
    checkpoint: CheckpointInfo
    export: ExportResult
    quantization: QuantizeResult
    backend: BackendResult | None = None
    evaluation: Evaluation | None = None
    latency: Latency | None = Field(
        default=None, description="where the artifact and the float network ran side by side"
    )
    device: DeviceResult | None = Field(
        default=None, description="of an artifact for a device that is not this machine"
    )
    ways: Ways | None = Field(
        default=None, description="what else would bring the time down, on a virtual device"
    )
    size: Size
    gates: Gates
    environment: Environment
    inputs: tuple[InputFile, ...]
    notes: tuple[str, ...] = ()

    model_config = ConfigDict(populate_by_name=True)
