"""The command line. Only typer is imported before a command is known: `--help` must be instant."""

from __future__ import annotations

from typing import Annotated

import typer

from mfn_compile.cli import (
    bench_command,
    device_commands,
    info_commands,
    options,
    stage_commands,
    tune_command,
)
from mfn_compile.cli.boundary import ErrorBoundary
from mfn_compile.errors import UsageError
from mfn_compile.version import __version__

app = typer.Typer(
    name="mfn-compile",
    help="Compile a trained MobileFaceNet to a faithful INT8 artifact, with the evidence.",
    epilog="Exit codes: 0 done and within budget; 2 wrong usage; 3 bad input; 4 accuracy budget "
    "missed; 5 latency budget missed; 6 a device or tool is missing; 7 an internal check failed; "
    "130 interrupted.",
    invoke_without_command=True,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich takes 0.1 s to import, a third of what --help may take
    context_settings={"help_option_names": ["-h", "--help"]},
)
stage_commands.register(app)
device_commands.register(app)
bench_command.register(app)
tune_command.register(app)
info_commands.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mfn-compile {__version__}")
        raise typer.Exit


def _refuse_options_before(context: typer.Context) -> None:
    """Options of the whole run do nothing for a command; dropping them would be a trap."""
    command = context.invoked_subcommand
    for name in context.params:
        source = context.get_parameter_source(name)
        if name != "debug" and source is not None and source.name == "COMMANDLINE":
            option = "--json" if name == "as_json" else f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{option} stands before {command!r} and belongs to the whole run",
                hint=f"Write options of a command behind it: `mfn-compile {command} ...`",
            )


@app.callback()
def compile_command(
    context: typer.Context,
    target: options.TargetChoice = None,
    checkpoint: options.Checkpoint = None,
    color: options.Color = None,
    mean: options.Mean = None,
    std: options.Std = None,
    bn_eps: options.BnEps = None,
    dynamic_batch: options.DynamicBatch = False,
    lfw: options.Lfw = None,
    benchmark: options.Benchmark = None,
    images: options.Images = None,
    pairs: options.Pairs = None,
    calibration: options.Calibration = None,
    all_pairs: options.AllPairs = True,
    recipe: options.RecipeName = "default",
    qat: options.Qat = False,
    qdq: options.Qdq = None,
    threads: options.Threads = None,
    tune: options.Tune = None,
    until_ms: options.UntilMs = None,
    tuned: options.TunedFolder = None,
    blob: options.Blob = False,
    out: options.Out = None,
    max_drop: options.MaxDrop = 0.2,
    max_latency_ms: options.MaxLatency = None,
    device: options.Device = None,
    device_seconds: options.DeviceSeconds = 300.0,
    strict: options.Strict = False,
    cache_dir: options.CacheDir = None,
    no_cache: options.NoCache = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it and exit.")
    ] = False,
) -> None:
    """Run the whole pipeline for --target, or one of the commands below."""
    given = locals()
    with ErrorBoundary(debug=debug):
        if context.invoked_subcommand is not None:
            _refuse_options_before(context)
            return
        if target is None:
            raise UsageError(
                "Nothing says what to compile for",
                hint="Give --target NAME (`mfn-compile targets` lists them), or see --help",
            )
        from mfn_compile.cli.whole_run import whole_run  # noqa: PLC0415 - imports the pipeline

        whole_run(options.compile_request(given), as_json=as_json, quiet=quiet)


def main() -> None:
    """Entry point of the `mfn-compile` command."""
    app()
