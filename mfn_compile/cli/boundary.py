"""Where errors become one paragraph on standard error and an exit code."""

from __future__ import annotations

import errno
import sys
import traceback
from types import TracebackType

from mfn_compile.errors import DeviceError, ExitCode, InternalCheckError, MfnError

_FULL = (errno.ENOSPC, errno.EDQUOT)


class ErrorBoundary:
    """Context in which a command runs; leaves the process with the documented exit code.

    Args:
        debug: print the traceback as well.
    """

    def __init__(self, *, debug: bool) -> None:
        self._debug = debug

    def __enter__(self) -> ErrorBoundary:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None or isinstance(error, SystemExit | GeneratorExit):
            return
        if kind is not None and kind.__module__.startswith(("typer", "click")):
            return  # usage errors and exits of the command line's own parser
        if self._debug:
            traceback.print_exception(error)
        if isinstance(error, KeyboardInterrupt):
            print("Interrupted. Run the same command again to resume.", file=sys.stderr)
            raise SystemExit(ExitCode.INTERRUPTED) from None
        known = _as_known(error)
        print(f"mfn-compile: {known.paragraph()}", file=sys.stderr)
        raise SystemExit(known.exit_code) from None


def _as_known(error: BaseException) -> MfnError:
    if isinstance(error, MfnError):
        return error
    if isinstance(error, BrokenPipeError):
        return DeviceError("Nobody reads the output any more", hint="Leave the pipe open")
    if isinstance(error, OSError):
        full = error.errno in _FULL
        return DeviceError(
            "The disk is full" if full else "A file cannot be read or written",
            where=str(error.filename or ""),
            why=error.strerror or str(error),
            hint="Free some space, or name other folders with --out and --cache-dir"
            if full
            else "Check the path and its permissions",
        )
    if isinstance(error, MemoryError):
        return DeviceError("There is not enough memory", hint="Close other programs and try again")
    return InternalCheckError(
        f"An unexpected {type(error).__name__}",
        why=str(error).strip() or "It says no more",
        hint="This is a bug in mfn-compile: please report it with the output of the same command "
        "and --debug",
    )
