"""Running outside tools: a time limit on each, and their failures as one paragraph."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mfn_compile.errors import DeviceError

SHOWN_LINES = 5


@dataclass(frozen=True)
class Finished:
    """A tool that ended; a negative code is the number of the signal that ended it."""

    code: int
    stdout: str
    stderr: str

    def first_lines(self) -> str:
        """The first lines that it printed, errors before output."""
        lines = [line.strip() for line in (self.stderr + "\n" + self.stdout).splitlines()]
        return " / ".join([line for line in lines if line][:SHOWN_LINES])


def run_tool(command: Sequence[str], *, timeout: float, cwd: Path | None = None) -> Finished:
    """Run a tool to its end, in the C locale and without input.

    Raises:
        DeviceError: it cannot be started, or takes longer than `timeout` seconds.
    """
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DeviceError(
            "An outside tool did not finish",
            where=command[0],
            why=f"it was stopped after {timeout:g} seconds",
            hint="Run again on a machine that is less busy",
        ) from error
    except OSError as error:
        raise DeviceError(
            "An outside tool cannot be started",
            where=command[0],
            why=error.strerror or str(error),
            hint="Check its installation: mfn-compile doctor",
        ) from error
    return Finished(
        done.returncode,
        done.stdout.decode(errors="replace"),
        done.stderr.decode(errors="replace"),
    )
