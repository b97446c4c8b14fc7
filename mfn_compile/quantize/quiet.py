"""NNCF without its log lines, progress bars and telemetry; Progress speaks instead."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Read when nncf is imported: it then sends no usage statistics and never tries the network.
os.environ.setdefault("NNCF_CI", "1")


@contextmanager
def quiet_nncf() -> Iterator[Any]:
    """The nncf module; inside the block it prints nothing."""
    import nncf  # noqa: PLC0415 - takes a second, only where it runs
    from nncf.common.logging import track_progress  # noqa: PLC0415

    logger = logging.getLogger("nncf")
    level, was_hidden = logger.level, track_progress.Progress.__init__
    logger.setLevel(logging.CRITICAL)

    def hidden(self: Any, *args: Any, **kwargs: Any) -> None:
        was_hidden(self, *args, **(kwargs | {"disable": True}))

    track_progress.Progress.__init__ = hidden
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield nncf
    finally:
        track_progress.Progress.__init__ = was_hidden
        logger.setLevel(level)
