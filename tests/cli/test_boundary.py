"""Errors become one paragraph and the documented exit code."""

from __future__ import annotations

import errno

import pytest

from mfn_compile.cli.boundary import ErrorBoundary
from mfn_compile.errors import (
    AccuracyBudgetError,
    BadInputError,
    DeviceError,
    ExitCode,
    InternalCheckError,
    LatencyBudgetError,
    MfnError,
    UsageError,
)


def leave(error: BaseException, *, debug: bool = False) -> int:
    with pytest.raises(SystemExit) as caught, ErrorBoundary(debug=debug):
        raise error
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (UsageError, 2), (BadInputError, 3), (AccuracyBudgetError, 4), (LatencyBudgetError, 5),
        (DeviceError, 6), (InternalCheckError, 7),
    ],
)  # fmt: skip
def test_each_error_has_its_code_and_one_paragraph(
    kind: type[MfnError], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leave(kind("It broke", where="here", why="a cause", hint="mend it")) == code
    output = capsys.readouterr()
    assert output.err == "mfn-compile: It broke (here). A cause. Mend it.\n"
    assert output.out == ""


def test_a_full_disk_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert leave(OSError(errno.ENOSPC, "No space left on device", "/x/y")) == ExitCode.DEVICE
    text = capsys.readouterr().err
    assert "The disk is full (/x/y)" in text
    assert "--cache-dir" in text


def test_interruption_says_how_to_resume(capsys: pytest.CaptureFixture[str]) -> None:
    assert leave(KeyboardInterrupt()) == 130
    assert "resume" in capsys.readouterr().err


def test_a_bug_is_an_internal_error_without_a_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert leave(ZeroDivisionError("division by zero")) == 7
    text = capsys.readouterr().err
    assert "ZeroDivisionError" in text
    assert "Traceback" not in text
    assert text.count("\n") == 1


def test_debug_prints_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert leave(ZeroDivisionError("x"), debug=True) == 7
    assert "Traceback" in capsys.readouterr().err


def test_success_and_exits_pass_through() -> None:
    with ErrorBoundary(debug=False):
        pass
    with pytest.raises(SystemExit) as caught, ErrorBoundary(debug=False):
        raise SystemExit(5)
    assert caught.value.code == 5
