"""Errors that tell the user what is wrong, where, why, and what to do next.

Every error carries the exit code that the command line ends with (docs/cli.md lists them).
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the process ends with; scripts and CI rely on these numbers."""

    OK = 0
    USAGE = 2
    BAD_INPUT = 3
    ACCURACY_BUDGET = 4
    LATENCY_BUDGET = 5
    DEVICE = 6
    INTERNAL_CHECK = 7
    INTERRUPTED = 130


class MfnError(Exception):
    """Base of every error this package raises on purpose.

    Args:
        what: what is wrong, a sentence without its full stop.
        where: the file, key, layer or option that it is about.
        why: the cause, where it is not obvious from `what`.
        hint: what to do next.
    """

    exit_code = ExitCode.INTERNAL_CHECK

    def __init__(self, what: str, *, where: str = "", why: str = "", hint: str = "") -> None:
        self.what, self.where, self.why, self.hint = what, where, why, hint
        super().__init__(self.paragraph())

    def paragraph(self) -> str:
        """The whole message as one paragraph."""
        head = f"{self.what} ({self.where})" if self.where else self.what
        parts = [_sentence(part) for part in (head, self.why, self.hint) if part]
        return " ".join(p if p.endswith((".", "!", "?")) else f"{p}." for p in parts)


def _sentence(text: str) -> str:
    """Capitalize the first letter of a word; file names, layers and options stay as they are."""
    return text[0].upper() + text[1:] if text.split()[0].isalpha() else text


class UsageError(MfnError):
    """The command line or the call contradicts itself."""

    exit_code = ExitCode.USAGE


class BadInputError(MfnError):
    """A checkpoint, image, pairs list, recipe or target cannot be used."""

    exit_code = ExitCode.BAD_INPUT


class AccuracyBudgetError(MfnError):
    """INT8 loses more accuracy than the budget allows."""

    exit_code = ExitCode.ACCURACY_BUDGET


class LatencyBudgetError(MfnError):
    """The artifact is slower than the budget allows."""

    exit_code = ExitCode.LATENCY_BUDGET


class DeviceError(MfnError):
    """A device, an outside tool or the file system is missing or failed."""

    exit_code = ExitCode.DEVICE


class InternalCheckError(MfnError):
    """A check of our own failed: parity, bit-exactness, bundle verification."""

    exit_code = ExitCode.INTERNAL_CHECK
