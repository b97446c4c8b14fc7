"""`mfn-compile bench`: other engines beside ours."""

from __future__ import annotations

import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mfn_compile.cli import options
from mfn_compile.cli.boundary import ErrorBoundary

if TYPE_CHECKING:
    from mfn_compile.bench.results import Bench


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(bench)


def bench(
    device: options.BenchDevices,
    peers: options.Peers = "ncnn,onnxruntime,litert,mnn,openvino",
    checkpoint: options.Checkpoint = None,
    color: options.Color = None,
    mean: options.Mean = None,
    std: options.Std = None,
    bn_eps: options.BnEps = None,
    bundle: options.Bundles = None,
    lfw: options.Lfw = None,
    benchmark: options.Benchmark = None,
    images: options.Images = None,
    pairs: options.Pairs = None,
    calibration: options.Calibration = None,
    drift: options.Drift = True,
    install: options.Install = True,
    known: options.Known = False,
    out: options.Tables = None,
    cache_dir: options.CacheDir = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Compare engines on one checkpoint: modelled cycles on virtual boards, ratios on this machine.

    For maintainers: it fetches the peers' own packages, converters and quantizers. All results are
    kept in the cache folder, so that an interrupted run goes on where it was.
    """
    with ErrorBoundary(debug=debug):
        from mfn_compile.bench.peers import find_peers  # noqa: PLC0415 - imports pydantic

        chosen = find_peers([name.strip() for name in peers.split(",") if name.strip()])
        from mfn_compile.bench.checks import check_out, parse_devices  # noqa: PLC0415
        from mfn_compile.bench.whole import BenchRequest, run_bench  # noqa: PLC0415
        from mfn_compile.cli.console import make_progress  # noqa: PLC0415
        from mfn_compile.request import DataSource  # noqa: PLC0415

        devices, native = parse_devices(device)
        check_out(out)
        request = BenchRequest(
            model=options.model_source(checkpoint, color, mean, std, bn_eps),
            data=DataSource(lfw, benchmark, images, pairs, calibration, False),
            peers=chosen,
            devices=devices,
            native=native,
            bundles=tuple(bundle or ()),
            drift=drift,
            install=install,
            known=known,
            command=_command(),
            cache_dir=cache_dir,
        )
        with redirect_stdout(sys.stderr):
            found = run_bench(request, make_progress(quiet=quiet))
        _show(found, out, as_json)


def _show(found: Bench, out: Path | None, as_json: bool) -> None:
    """Print the tables, and write them to a file where one is named."""
    from mfn_compile.bench.table import markdown  # noqa: PLC0415
    from mfn_compile.files import write_whole  # noqa: PLC0415

    document = found.model_dump_json(indent=2, by_alias=True, exclude_none=True) + "\n"
    if out is not None:
        text = document if out.suffix == ".json" else markdown(found)
        write_whole(out, text.encode())
    typer.echo(document if as_json else markdown(found), nl=False)


def _command() -> str:
    """The command line as a reader may repeat it, folders shortened to their names."""
    words = [Path(word).name if word.startswith("/") else word for word in sys.argv[1:]]
    return shlex.join(["mfn-compile", *words])
