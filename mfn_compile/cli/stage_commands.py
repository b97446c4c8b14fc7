"""Commands that run one stage: export, quantize, evaluate, verify, report."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mfn_compile.cli import options
from mfn_compile.cli.boundary import ErrorBoundary

if TYPE_CHECKING:
    from pydantic import BaseModel


class EngineName(StrEnum):
    """Who runs the networks of an evaluation."""

    SHIPPED = "shipped"
    OPENVINO = "openvino"
    ONNXRUNTIME = "onnxruntime"


BundleArgument = Annotated[Path, typer.Argument(help="Folder that a run or `quantize` wrote.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (export, quantize, evaluate, verify, report):
        app.command()(command)


def export(
    checkpoint: options.Checkpoint = None,
    color: options.Color = None,
    mean: options.Mean = None,
    std: options.Std = None,
    bn_eps: options.BnEps = None,
    dynamic_batch: options.DynamicBatch = False,
    out: options.Out = None,
    cache_dir: options.CacheDir = None,
    no_cache: options.NoCache = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Recognise a checkpoint and export it to fp32 ONNX, checked against torch.

    With --out DIR the files model_fp32.onnx and export.json are written there.
    """
    with ErrorBoundary(debug=debug):
        from mfn_compile.single_stages import ExportRequest, run_export  # noqa: PLC0415

        request = ExportRequest(
            options.model_source(checkpoint, color, mean, std, bn_eps),
            dynamic_batch,
            out,
            cache_dir,
            no_cache,
        )
        from mfn_compile.cli.console import make_progress  # noqa: PLC0415

        with redirect_stdout(sys.stderr):
            found = run_export(request, make_progress(quiet=quiet))
        _print(found, found.lines(), as_json)


def quantize(
    target: options.TargetName = "intel",
    checkpoint: options.Checkpoint = None,
    color: options.Color = None,
    mean: options.Mean = None,
    std: options.Std = None,
    bn_eps: options.BnEps = None,
    lfw: options.Lfw = None,
    benchmark: options.Benchmark = None,
    images: options.Images = None,
    pairs: options.Pairs = None,
    calibration: options.Calibration = None,
    recipe: options.RecipeName = "default",
    qat: options.Qat = False,
    out: options.Out = None,
    cache_dir: options.CacheDir = None,
    no_cache: options.NoCache = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Export and quantize: writes the QDQ ONNX file that decides what INT8 computes.

    The evaluation images are only used to see that calibration does not touch them.
    """
    given = locals()
    with ErrorBoundary(debug=debug):
        from mfn_compile.cli.console import make_progress  # noqa: PLC0415
        from mfn_compile.single_stages import run_quantize  # noqa: PLC0415

        request = options.compile_request(given)
        with redirect_stdout(sys.stderr):
            found = run_quantize(request, make_progress(quiet=quiet))
        _print(found, found.lines(), as_json)


def evaluate(
    bundle: BundleArgument,
    lfw: options.Lfw = None,
    benchmark: options.Benchmark = None,
    images: options.Images = None,
    pairs: options.Pairs = None,
    all_pairs: options.AllPairs = True,
    engine: Annotated[
        EngineName,
        typer.Option(
            help="shipped runs what the bundle's target runs: OpenVINO, or the library's own "
            "integers; onnxruntime runs the QDQ file without graph optimizations, as the outside "
            "judge."
        ),
    ] = EngineName.SHIPPED,
    cache_dir: options.CacheDir = None,
    no_cache: options.NoCache = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Measure a bundle's INT8 network against its float one."""
    with ErrorBoundary(debug=debug):
        from mfn_compile.cli.console import make_progress  # noqa: PLC0415
        from mfn_compile.evaluating import evaluate_bundle  # noqa: PLC0415
        from mfn_compile.report.summary import evaluation_lines  # noqa: PLC0415
        from mfn_compile.request import DataSource  # noqa: PLC0415
        from mfn_compile.stages import open_store  # noqa: PLC0415

        progress = make_progress(quiet=quiet)
        data = DataSource(lfw, benchmark, images, pairs, None, all_pairs)
        with redirect_stdout(sys.stderr), open_store(cache_dir, no_cache, progress) as store:
            found = evaluate_bundle(bundle, data, engine.value, store, progress)
        _print(found, evaluation_lines(found), as_json)


def verify(
    bundle: BundleArgument,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Check a bundle's files, and run its library's own proof on real or emulated CPUs.

    The proof program and the library are the bundle's own code: verify bundles that you trust.
    """
    with ErrorBoundary(debug=debug):
        from mfn_compile.cli.console import make_progress  # noqa: PLC0415
        from mfn_compile.verifying import verify as check  # noqa: PLC0415

        with redirect_stdout(sys.stderr):
            found = check(bundle, make_progress(quiet=quiet))
        _print(found, found.lines(), as_json)


def report(
    source: Annotated[Path, typer.Argument(help="A bundle, or its report.json.")],
    html: Annotated[
        Path | None, typer.Option(help="Write report.html anew to this file.", show_default=False)
    ] = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Print the summary of a report, and render its page again with --html FILE."""
    with ErrorBoundary(debug=debug):
        from mfn_compile.report.document import load, to_json  # noqa: PLC0415
        from mfn_compile.report.summary import summary_text  # noqa: PLC0415

        result = load(source / "report.json" if source.is_dir() else source)
        if html is not None:
            from mfn_compile.files import write_whole  # noqa: PLC0415
            from mfn_compile.report.html import render_html  # noqa: PLC0415

            write_whole(html, render_html(result).encode())
        typer.echo(to_json(result) if as_json else summary_text(result), nl=False)


def _print(found: BaseModel, lines: str, as_json: bool) -> None:
    text = found.model_dump_json(indent=2, by_alias=True) if as_json else lines
    typer.echo(text.rstrip("\n"))
