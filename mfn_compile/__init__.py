"""Compile a trained MobileFaceNet to a faithful INT8 artifact, with the evidence.

`compile` is the whole pipeline of the command line as one call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mfn_compile.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from mfn_compile.progress import Progress
    from mfn_compile.results import Result

__all__ = ["__version__", "compile"]


def compile(
    checkpoint: str | PathLike[str] | None = None,
    target: str = "intel",
    *,
    lfw: str | PathLike[str] | None = None,
    benchmark: str | PathLike[str] | None = None,
    images: str | PathLike[str] | None = None,
    pairs: str | PathLike[str] | None = None,
    calibration: str | PathLike[str] | None = None,
    all_pairs: bool = True,
    recipe: str = "default",
    qat: bool = False,
    qdq: str | PathLike[str] | None = None,
    out: str | PathLike[str] | None = None,
    threads: int | None = None,
    tune: int | None = None,
    color: str | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    bn_eps: float | None = None,
    dynamic_batch: bool = False,
    blob: bool = False,
    max_drop: float = 0.2,
    max_latency_ms: float | None = None,
    device: str | None = None,
    device_seconds: float = 300.0,
    strict: bool = False,
    cache_dir: str | PathLike[str] | None = None,
    no_cache: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Compile `checkpoint` for `target`, write the bundle to `out`, return the report's content.

    The arguments are the options of `mfn-compile`; None means the same as leaving one out. A missed
    budget is no exception: look at `result.gates`.

    Raises:
        mfn_compile.errors.MfnError: one of its subclasses, each with its exit code.
    """
    from pathlib import Path  # noqa: PLC0415 - `import mfn_compile` stays instant

    from mfn_compile.pipeline import run  # noqa: PLC0415
    from mfn_compile.request import CompileRequest, DataSource, ModelSource  # noqa: PLC0415

    def path(value: str | PathLike[str] | None) -> Path | None:
        return None if value is None else Path(value)

    def channels(value: float | Sequence[float] | None) -> tuple[float, ...] | None:
        if value is None:
            return None
        return (float(value),) if isinstance(value, int | float) else tuple(value)

    request = CompileRequest(
        target=target,
        model=ModelSource(path(checkpoint), color, channels(mean), channels(std), bn_eps),
        data=DataSource(
            path(lfw), path(benchmark), path(images), path(pairs), path(calibration), all_pairs
        ),
        recipe=recipe,
        qat=qat,
        qdq=path(qdq),
        out=path(out),
        threads=threads,
        tune=tune,
        dynamic_batch=dynamic_batch,
        blob=blob,
        max_drop=max_drop,
        max_latency_ms=max_latency_ms,
        device=device,
        device_seconds=device_seconds,
        strict=strict,
        cache_dir=path(cache_dir),
        no_cache=no_cache,
    )
    return run(request, progress).result
