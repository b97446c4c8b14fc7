"""NNCF without its log lines, progress bars and telemetry; Progress speaks instead."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mfn_compile.no_telemetry  # noqa: F401 - before nncf is imported

# torchao complains about GPU libraries, torch about torchao, when nncf imports them to strip.
TALKATIVE = ("nncf", "torchao", "torch.utils._pytree")


@contextmanager
def quiet_nncf() -> Iterator[Any]:
    """The nncf module; inside the block it prints nothing."""
    import nncf  # noqa: PLC0415 - takes a second, only where it runs
    from nncf.common.logging import track_progress  # noqa: PLC0415

    loggers = [logging.getLogger(name) for name in TALKATIVE]
    levels, was_hidden = [log.level for log in loggers], track_progress.Progress.__init__
    for log in loggers:
        log.setLevel(logging.CRITICAL)

    def hidden(self: Any, *args: Any, **kwargs: Any) -> None:
        was_hidden(self, *args, **(kwargs | {"disable": True}))

    track_progress.Progress.__init__ = hidden
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield nncf
    finally:
        track_progress.Progress.__init__ = was_hidden
        for log, level in zip(loggers, levels, strict=True):
            log.setLevel(level)
