"""The tables of a report as rows of formatted text: the HTML page and the console show these."""

from __future__ import annotations

from dataclasses import dataclass

from mfn_compile.report import format as fmt
from mfn_compile.results import (
    AllPairs,
    BackendResult,
    Evaluation,
    Latency,
    LayerError,
    PairedTest,
    QuantizeResult,
    Result,
    Size,
)

SIGNIFICANT = 0.05
LONG = 54  # characters of a label and its value that still fit beside each other
GRIDS = {"free": "any", "exact": "short: every executor computes the same bits"}
LOWEST = 10  # layers shown without unfolding the whole table
HIGHLIGHTED = 5  # bars marked in the figure


@dataclass(frozen=True)
class Fact:
    """A label and its value."""

    label: str
    value: str

    @property
    def long(self) -> bool:
        """True where the value deserves a line of its own."""
        return len(self.label) + len(self.value) > LONG


@dataclass(frozen=True)
class Comparison:
    """One quantity of both models; `difference` is INT8 minus fp32."""

    label: str
    fp32: str
    int8: str
    difference: str


@dataclass(frozen=True)
class LayerRow:
    """One layer; `number` is its place in the network, from 1."""

    number: int
    name: str
    op: str
    precision: str
    sqnr: str
    cosine: str


def drift(evaluation: Evaluation) -> list[Comparison]:
    """What quantization cost on the pairs, and on all pairs where they were taken."""
    a, b = evaluation.fp32, evaluation.int8
    rows = [
        Comparison(
            "Accuracy",
            fmt.percent(a.accuracy, a.accuracy_std),
            fmt.percent(b.accuracy, b.accuracy_std),
            fmt.points(b.accuracy - a.accuracy),
        ),
        Comparison(
            "Accuracy, flip",
            fmt.percent(a.accuracy_flip, a.accuracy_flip_std),
            fmt.percent(b.accuracy_flip, b.accuracy_flip_std),
            fmt.points(b.accuracy_flip - a.accuracy_flip),
        ),
        _percentages(
            "Accuracy, fp32 threshold kept", a.accuracy, evaluation.accuracy_at_fp32_threshold
        ),
    ]
    rows += _rates("TAR at FAR {}", a.tar_at_far, b.tar_at_far)
    rows += _rates("TAR at FAR {}, flip", a.tar_at_far_flip, b.tar_at_far_flip)
    rows.append(_percentages("Equal error rate", a.eer, b.eer))
    rows.append(
        Comparison("AUC", fmt.fixed(a.auc, 5), fmt.fixed(b.auc, 5), fmt.signed(b.auc - a.auc, 5))
    )
    change = fmt.signed(b.threshold - a.threshold, 4)
    rows.append(
        Comparison("Threshold", fmt.fixed(a.threshold, 4), fmt.fixed(b.threshold, 4), change)
    )
    return rows + (all_pairs(evaluation.all_pairs) if evaluation.all_pairs else [])


def all_pairs(found: AllPairs) -> list[Comparison]:
    """TAR over every pair of images."""
    return _rates("All pairs: TAR at FAR {}", found.fp32_tar_at_far, found.int8_tar_at_far)


def _rates(label: str, fp32: dict[str, float], int8: dict[str, float]) -> list[Comparison]:
    keys = sorted(fp32.keys() & int8.keys(), key=float, reverse=True)
    return [_percentages(label.format(key), fp32[key], int8[key]) for key in keys]


def _percentages(label: str, fp32: float, int8: float) -> Comparison:
    return Comparison(label, fmt.percent(fp32), fmt.percent(int8), fmt.points(int8 - fp32))


def cosine(evaluation: Evaluation) -> list[Fact]:
    """How near the INT8 embeddings are to the fp32 ones."""
    found = evaluation.cosine
    return [
        Fact("Mean cosine", fmt.cosine(found.mean)),
        Fact("1st percentile", fmt.cosine(found.p01)),
        Fact("Minimum", fmt.cosine(found.min)),
        Fact("Images", fmt.count(evaluation.images)),
    ]


def paired(evaluation: Evaluation) -> list[Fact]:
    """Pair decisions that quantization changed."""
    test = evaluation.paired
    share = f"{fmt.count(test.flipped)} of {fmt.count(evaluation.pairs)}"
    return [
        Fact("Decisions that changed", share),
        Fact("Right in fp32, wrong in INT8", fmt.count(test.lost)),
        Fact("Wrong in fp32, right in INT8", fmt.count(test.gained)),
        Fact("McNemar's exact test", f"p {_equals(fmt.p_value(test.mcnemar_p))}"),
        Fact("95 % interval of the drop", _interval(test)),
        Fact("Bootstrap samples", fmt.count(test.bootstrap_samples)),
    ]


def _equals(text: str) -> str:
    return text if text.startswith("<") else f"= {text}"


def _interval(test: PairedTest) -> str:
    return f"{fmt.points(test.bootstrap_low)} to {fmt.points(test.bootstrap_high)} points"


def paired_meaning(evaluation: Evaluation) -> str:
    """One plain sentence or two on what the paired test says."""
    test = evaluation.paired
    if test.lost + test.gained == 0:
        return "INT8 decides every pair as right or as wrong as fp32 does: no loss to be seen."
    what = f"INT8 lost {fmt.plural(test.lost, 'pair')} and won {fmt.count(test.gained)}."
    if test.mcnemar_p >= SIGNIFICANT:
        odds = fmt.fixed(100 * test.mcnemar_p, 0)
        return (
            f"{what} Without any real difference, chance alone gives a split at least this uneven "
            f"in {odds} % of cases: these pairs show no real change of accuracy."
        )
    kind = "loss" if test.lost > test.gained else "gain"
    odds = "less than 0.1 %" if test.mcnemar_p < fmt.MIN_P else f"{100 * test.mcnemar_p:.1f} %"
    return (
        f"{what} Without any real difference, chance alone gives a split at least this uneven in "
        f"{odds} of cases: chance seldom makes such a {kind}. "
        "The interval says how large it may be."
    )


def quantization(found: QuantizeResult) -> list[Fact]:
    """How the INT8 network was made."""
    calibration = found.calibration
    shared = calibration.shared_identities
    rows = [
        Fact("Recipe", found.recipe),
        Fact("Method chosen", _method(found)),
        *_made_for(found),
        Fact("Convolutions quantized", fmt.count(found.quantized_convolutions)),
        Fact("Convolutions left in float", _names(found.float_convolutions)),
        Fact("Per-channel activation scales", fmt.count(found.per_channel_activations)),
        Fact("Calibration images", f"{fmt.count(calibration.images)} from {calibration.source}"),
        Fact("Images shared with the evaluation", fmt.count(calibration.shared_images)),
    ]
    if shared is not None:
        rows.append(Fact("Calibration images of evaluated people", fmt.count(shared)))
    if found.qat is not None:
        qat = found.qat
        rows.append(
            Fact(
                "Fine-tuning",
                f"{fmt.plural(qat.steps, 'step')} of batch {fmt.count(qat.batch_size)}, "
                f"rate {qat.learning_rate:g}, {fmt.plural(qat.images, 'image')}",
            )
        )
    return rows


def _made_for(found: QuantizeResult) -> list[Fact]:
    """What our own quantizer did for the target; of a given file it is not known."""
    if found.method == "given":
        return []
    return [
        Fact("Overflow fix", found.overflow_fix.replace("_", " ")),
        Fact("Scales", GRIDS[found.grid]),
    ]


def _method(found: QuantizeResult) -> str:
    if found.method == "given":
        return "a QDQ file of the user's"
    return f"{found.method.upper()} (best on {_held_out(found)})"


def _held_out(found: QuantizeResult) -> str:
    return f"{fmt.plural(found.held_out_images, 'held-out crop')}"


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(names) if names else "none"


def candidates(found: QuantizeResult) -> list[tuple[str, str, str]]:
    """Method, mean and lowest held-out cosine of every network that was judged."""
    return [
        (
            f"{c.method.upper()}{' (chosen)' if c.method == found.method else ''}",
            fmt.cosine(c.held_out_cosine),
            fmt.cosine(c.held_out_min_cosine),
        )
        for c in found.candidates
    ]


def history(found: QuantizeResult) -> list[tuple[str, str, str]]:
    """Step, loss and held-out cosine of the fine-tuning."""
    steps = found.qat.history if found.qat else ()
    return [
        (
            fmt.count(step.step),
            fmt.fixed(step.loss, 5),
            fmt.ABSENT if step.held_out_cosine is None else fmt.cosine(step.held_out_cosine),
        )
        for step in steps
    ]


def precision(found: BackendResult) -> list[Fact]:
    """What the backend runs in INT8, and how it agrees with the outside judge."""
    kinds = found.precision.other_layers
    others = ", ".join(f"{kind} {fmt.count(kinds[kind])}" for kind in sorted(kinds))
    return [
        Fact("Convolutions in INT8", fmt.count(found.precision.int8_layers)),
        Fact("Convolutions not in INT8", _names(found.precision.float_layers)),
        Fact("Other layers", others or "none"),
        Fact("Mean cosine to ONNX Runtime", fmt.cosine(found.judge_cosine)),
        Fact("Lowest cosine to ONNX Runtime", fmt.cosine(found.judge_min_cosine)),
        Fact("Images compared with it", fmt.count(found.judge_images)),
    ]


def latency(found: Latency) -> list[Comparison]:
    """Percentiles of both models; the last column is the INT8 time's share."""
    rows = (
        ("Median", found.fp32_p50_ms, found.p50_ms),
        ("90th percentile", found.fp32_p90_ms, found.p90_ms),
        ("99th percentile", found.fp32_p99_ms, found.p99_ms),
    )
    return [
        Comparison(name, fmt.milliseconds(a), fmt.milliseconds(b), f"{fmt.signed(b - a, 2)} ms")
        for name, a, b in rows
    ]


def layers(found: tuple[LayerError, ...]) -> list[LayerRow]:
    """Every layer in the order of the network."""
    return [
        LayerRow(
            number,
            layer.name,
            layer.op,
            layer.precision,
            fmt.decibels(layer.sqnr_db),
            fmt.cosine(layer.cosine),
        )
        for number, layer in enumerate(found, start=1)
    ]


def lowest(found: tuple[LayerError, ...], number: int = LOWEST) -> list[LayerRow]:
    """The layers with the lowest signal-to-noise ratio, worst first."""
    order = sorted(range(len(found)), key=lambda i: found[i].sqnr_db)
    rows = layers(found)
    return [rows[i] for i in order[:number]]


def latency_facts(found: Latency) -> list[Fact]:
    """Where a time was taken, and what kind of time it is."""
    return [
        Fact("Device", found.device),
        Fact("Threads", fmt.count(found.threads)),
        Fact("Runtime", found.runtime),
        Fact("Both networks took", found.input),
        Fact("Repeats", fmt.count(found.repeats)),
        Fact("Speed-up over fp32", f"{fmt.ratio(found.speedup)} (median of interleaved pairs)"),
        Fact("CPU features", ", ".join(found.cpu_flags) or "none recorded"),
    ]


def size(found: Size) -> list[Fact]:
    """Bytes of the artifact."""
    rows = [
        Fact("INT8 model", fmt.size(found.model)),
        Fact("fp32 model", fmt.size(found.fp32_model)),
    ]
    if found.model:
        rows.append(Fact("Smaller by", fmt.ratio(found.fp32_model / found.model)))
    parts = (
        ("Code", found.text),
        ("Constants", found.rodata),
        ("Workspace", found.workspace),
    )
    return rows + [Fact(name, fmt.size(value)) for name, value in parts if value is not None]


def model(result: Result) -> list[Fact]:
    """What went in, and what it was exported to."""
    checkpoint, export = result.checkpoint, result.export
    return [
        Fact("Checkpoint", checkpoint.name),
        Fact("Layout", checkpoint.layout),
        Fact("Input", checkpoint.preprocessing.describe()),
        Fact("Embedding", fmt.count(checkpoint.embedding_width)),
        Fact("Parameters", fmt.count(checkpoint.parameters)),
        Fact("Multiply-adds", fmt.count(checkpoint.macs)),
        Fact("Activations", _names(checkpoint.activations)),
        Fact("Convolutions", fmt.count(export.convolutions)),
        Fact("ONNX opset", str(export.opset)),
        Fact("Export against torch", _parity(result)),
    ]


def _parity(result: Result) -> str:
    parity = result.export.parity
    return (
        f"largest difference {parity.max_abs_difference:.1e}, relative "
        f"{parity.max_relative_difference:.1e} (allowed {parity.tolerance:.1e})"
    )


def target(result: Result) -> list[Fact]:
    """What was compiled for."""
    found = result.target_details
    return [
        Fact("Target", found.name),
        Fact("Description", found.description),
        Fact("Backend", found.backend),
        Fact("Threads", fmt.count(found.threads)),
        Fact("Latency budget of the target", fmt.milliseconds(found.latency_budget_ms)),
    ]


def environment(result: Result) -> list[Fact]:
    """Where and with what the result was made."""
    found = result.environment
    return [
        Fact("mfn-compile", result.version),
        Fact("Machine", found.machine),
        Fact("CPU", found.cpu),
        Fact("Cores", fmt.count(found.cores)),
        Fact("Python", found.python),
        *(Fact(name, found.packages[name]) for name in sorted(found.packages)),
    ]


def hashes(result: Result) -> list[Fact]:
    """Every input, and the two networks made from them."""
    rows = [Fact(f"{file.role}: {file.name}", file.sha256) for file in result.inputs]
    rows.append(Fact(f"fp32 network: {result.export.file}", result.export.sha256))
    rows.append(Fact(f"INT8 network: {result.quantization.file}", result.quantization.sha256))
    return rows
