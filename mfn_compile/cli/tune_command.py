"""`mfn-compile tune`: searches the fastest schedules of an ARM target's kernels."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout

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
    trials: options.Trials = 1000,
    seed: options.Seed = 0,
    until_ms: options.UntilMs = None,
    device: options.TuningDevice = None,
    size: options.ImageSize = None,
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
    given = {**locals(), "until_ms": None, "device": None}  # a whole run's mean something else
    with ErrorBoundary(debug=debug):
        from mfn_compile.cli.console import make_progress  # noqa: PLC0415
        from mfn_compile.pipeline import tune as run_tune  # noqa: PLC0415
        from mfn_compile.tuning import TuneRequest  # noqa: PLC0415

        request = options.compile_request(given)
        shape = options.image_size(size)
        wanted = TuneRequest(trials, seed, until_ms, device, shape, device_seconds)
        with redirect_stdout(sys.stderr):
            found = run_tune(request, wanted, make_progress(quiet=quiet))
        typer.echo(found.model_dump_json(indent=2) if as_json else found.lines())
