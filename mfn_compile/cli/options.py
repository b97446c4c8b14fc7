"""Command-line options that several commands share, each written once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from mfn_compile.errors import UsageError
from mfn_compile.request import CompileRequest, DataSource, ModelSource

CROP_SIZE = 112  # of aligned faces

Checkpoint = Annotated[
    Path | None,
    typer.Option(
        help="Weights: .pt .pth .ckpt .safetensors or fp32 .onnx. Without it, the demo model on "
        "rendered faces.",
        show_default=False,
    ),
]
Color = Annotated[
    str | None,
    typer.Option(help="Colour order, RGB or BGR; default: the layout's."),
]
Mean = Annotated[
    str | None,
    typer.Option(help="Mean in pixel values, one number or three: 127.5 or 123.7,116.3,103.5."),
]
Std = Annotated[
    str | None,
    typer.Option(help="Standard deviation, likewise."),
]
BnEps = Annotated[
    float | None,
    typer.Option(help="BatchNorm epsilon; default: the layout's."),
]
DynamicBatch = Annotated[
    bool,
    typer.Option("--dynamic-batch", help="Leave the batch axis of the fp32 ONNX free."),
]
Lfw = Annotated[
    Path | None,
    typer.Option(help="LFW in scikit-learn's layout (lfw_home)."),
]
Benchmark = Annotated[
    Path | None,
    typer.Option(help="InsightFace .bin set (lfw, agedb_30, cfp_fp); needs --calibration."),
]
Images = Annotated[
    Path | None,
    typer.Option(help="Folder of aligned crops, with --pairs."),
]
Pairs = Annotated[
    Path | None,
    typer.Option(help="Pairs over --images: LFW's format or CSV first,second,same[,fold]."),
]
Calibration = Annotated[
    Path | None,
    typer.Option(help="Folder of aligned crops to calibrate on."),
]
AllPairs = Annotated[
    bool,
    typer.Option(
        "--all-pairs/--no-all-pairs", help="Compare every image with every other as well."
    ),
]
TargetName = Annotated[
    str, typer.Option(help="A name from `mfn-compile targets`, or your own TOML.")
]
RecipeName = Annotated[
    str, typer.Option(help="A name from `mfn-compile recipes`, or your own TOML.")
]
Qat = Annotated[
    bool, typer.Option("--qat", help="Fine-tune with fake quantization; the better one wins.")
]
Qdq = Annotated[
    Path | None,
    typer.Option(
        help="Compile this QDQ ONNX file, quantized from the checkpoint by another tool.",
        show_default=False,
    ),
]
Threads = Annotated[
    int | None, typer.Option(min=1, max=1024, help="Threads of one inference; default: target's.")
]
Tune = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Try so many ways to run the artifact faster, and keep what is; 0: none. "
        "Default for intel targets: a list that takes up to 20 s.",
        show_default=False,
    ),
]
UntilMs = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        help="With tuning: end it once one image takes no more than this on a board, virtual or "
        "real.",
    ),
]
TunedFolder = Annotated[
    Path | None,
    typer.Option(help="Folder that `mfn-compile tune` wrote: use what it found."),
]
Device = Annotated[
    str | None,
    typer.Option(
        help="Time an ARM artifact on virtual:NAME (modelled), rpc://HOST:PORT/KEY (a board), "
        "local, or none. Default: the target's own virtual board, where it is a board.",
        show_default=False,
    ),
]
DeviceSeconds = Annotated[
    float, typer.Option(min=1.0, help="Give a device up that does not answer for so long.")
]
TargetChoice = Annotated[
    str | None,
    typer.Option(
        help="Compile for this target: a name from `mfn-compile targets`, or a TOML.",
        show_default=False,
    ),
]
Blob = Annotated[
    bool, typer.Option("--blob", help="Also store the model compiled for this very CPU.")
]
MaxDrop = Annotated[float, typer.Option(help="Accuracy that INT8 may lose, in points.", min=0.0)]
MaxLatency = Annotated[
    float | None,
    typer.Option(help="Time one image may take; default: the target's budget.", min=0.0),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="A modelled time that may miss the budget misses it.")
]
Trials = Annotated[
    int, typer.Option(min=1, help="Measurements of each variant, earlier ones included.")
]
Seed = Annotated[int, typer.Option(min=0, help="Of the search.")]
TuningDevice = Annotated[
    str | None,
    typer.Option(
        help="Where candidates run: virtual:NAME or rpc://HOST:PORT/KEY. Default: the virtual "
        "core that each variant is compiled for.",
        show_default=False,
    ),
]
ImageSize = Annotated[
    str | None,
    typer.Option(
        help="Tune for a smaller image, such as 112x96: height and width. Only what it costs "
        "is known then; a network for it has to be trained.",
        show_default=False,
    ),
]
Peers = Annotated[str, typer.Option(help="Engines, with commas between them.")]
BenchDevices = Annotated[
    list[str],
    typer.Option(help="virtual:CORE or virtual:BOARD (modelled), host (timed); repeatable."),
]
Bundles = Annotated[
    list[Path] | None,
    typer.Option(
        help="Ours: the folder of a run for an ARM target. Repeatable: on every device the "
        "fastest counts.",
        show_default=False,
    ),
]
Drift = Annotated[
    bool, typer.Option("--drift/--no-drift", help="Measure what the models do to the pairs.")
]
Install = Annotated[
    bool,
    typer.Option("--install/--no-install", help="Fetch the peers' packages where they lack."),
]
Known = Annotated[bool, typer.Option("--known", help="Run no peer: show what ran before.")]
Tables = Annotated[Path | None, typer.Option(help="Write the tables to this .md or .json file.")]
Out = Annotated[Path | None, typer.Option(help="Where the result goes.", show_default=False)]
CacheDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder of finished stages; default: MFN_CACHE_DIR or the user's cache.",
        show_default=False,
    ),
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Compute everything anew.")]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print the result as JSON and nothing else."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Debug = Annotated[bool, typer.Option("--debug", help="Tracebacks with errors.")]


def compile_request(values: Mapping[str, Any]) -> CompileRequest:
    """What the options of a command ask for; those that it does not have keep their defaults.

    Args:
        values: by name; others than those of the request are left alone.

    Raises:
        UsageError: options contradict each other, or one is no such thing.
    """
    model = model_source(*(values[name] for name in _names(ModelSource)))
    data = DataSource(**{name: values[name] for name in _names(DataSource) if name in values})
    rest = {name: values[name] for name in _names(CompileRequest) if name in values}
    return CompileRequest(**(rest | {"model": model, "data": data}))


def _names(kind: type[ModelSource | DataSource | CompileRequest]) -> list[str]:
    return [field.name for field in fields(kind)]


def channel_values(text: str | None, option: str) -> tuple[float, ...] | None:
    """One number or three from "127.5" or "123.7,116.3,103.5".

    Raises:
        UsageError: it is neither.
    """
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, 3):
        raise UsageError(
            f"{option} {text!r} is neither one number nor three",
            hint=f"Write {option} 127.5 or {option} 123.7,116.3,103.5",
        )
    return values


def image_size(text: str | None) -> tuple[int, int] | None:
    """Height and width from "112x96".

    Raises:
        UsageError: it is no size of at most 112x112.
    """
    if text is None:
        return None
    height, _, width = text.partition("x")
    if height.isdecimal() and width.isdecimal() and max(len(height), len(width)) <= 3:
        size = int(height), int(width)
        if 0 < min(size) <= max(size) <= CROP_SIZE:
            return size
    raise UsageError(
        f"--size {text!r} is no size of an image",
        hint=f"Write height and width, at most {CROP_SIZE}x{CROP_SIZE}: --size 112x96",
    )


def model_source(
    checkpoint: Path | None,
    color: str | None,
    mean: str | None,
    std: str | None,
    bn_eps: float | None,
) -> ModelSource:
    """The model options as the pipeline takes them.

    Raises:
        UsageError: a colour order, mean or standard deviation is no such thing.
    """
    if color is not None and color.upper() not in ("RGB", "BGR"):
        raise UsageError(f"--color {color!r} is neither RGB nor BGR")
    return ModelSource(
        checkpoint,
        color.upper() if color else None,
        channel_values(mean, "--mean"),
        channel_values(std, "--std"),
        bn_eps,
    )
