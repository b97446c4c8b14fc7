"""`mfn-compile tune`: searches the fastest schedules of an ARM target's kernels."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import Annotated

import typer

from mfn_compile.cli import options
from mfn_compile.cli.boundary import ErrorBoundary


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(tune)


def tune(
    target: options.TargetName = "arm64",
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
    qdq: options.Qdq = None,
    trials: Annotated[
        int, typer.Option(min=1, help="Measurements of each variant, earlier ones included.")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the search.")] = 0,
    until_ms: options.UntilMs = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Where candidates run: virtual:NAME or rpc://HOST:PORT/KEY. Default: the virtual "
            "core that each variant is compiled for.",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="Tune for a smaller image, such as 112x96: height and width. Only what it costs "
            "is known then; a network for it has to be trained.",
            show_default=False,
        ),
    ] = None,
    device_seconds: options.DeviceSeconds = 300.0,
    out: options.Out = None,
    cache_dir: options.CacheDir = None,
    no_cache: options.NoCache = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Search the fastest schedules of an ARM target's kernels, for one network.

    Every candidate computes the whole network and must agree with the oracle in every bit. The
    folder of --out keeps every trial: the same command goes on where it was stopped, and
    `mfn-compile --target NAME --tuned FOLDER` compiles with what was found.
    """
    with ErrorBoundary(debug=debug):
        from mfn_compile.cli.console import make_progress  # noqa: PLC0415
        from mfn_compile.pipeline import tune as run_tune  # noqa: PLC0415
        from mfn_compile.request import CompileRequest, DataSource  # noqa: PLC0415
        from mfn_compile.tuning import TuneRequest  # noqa: PLC0415

        request = CompileRequest(
            target=target,
            model=options.model_source(checkpoint, color, mean, std, bn_eps),
            data=DataSource(lfw, benchmark, images, pairs, calibration),
            recipe=recipe,
            qdq=qdq,
            out=out,
            cache_dir=cache_dir,
            no_cache=no_cache,
        )
        shape = options.image_size(size)
        wanted = TuneRequest(trials, seed, until_ms, device, shape, device_seconds)
        with redirect_stdout(sys.stderr):
            found = run_tune(request, wanted, make_progress(quiet=quiet))
        typer.echo(found.model_dump_json(indent=2) if as_json else found.lines())
