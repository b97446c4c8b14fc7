"""`mfn-compile --target NAME`: run the pipeline, print the verdict, leave with its exit code."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout

from mfn_compile import gates
from mfn_compile.cli.console import make_progress
from mfn_compile.pipeline import run
from mfn_compile.report.document import to_json
from mfn_compile.request import CompileRequest


def whole_run(request: CompileRequest, *, as_json: bool, quiet: bool) -> None:
    """Compile and print; a missed budget is raised after everything has been written.

    Raises:
        AccuracyBudgetError, LatencyBudgetError: INT8 is not good enough.
        MfnError: anything else that went wrong.
    """
    with redirect_stdout(sys.stderr):  # libraries talk; standard output is the result's alone
        outcome = run(request, make_progress(quiet=quiet))
    if as_json:
        sys.stdout.write(to_json(outcome.result))
    else:
        from rich.console import Console  # noqa: PLC0415 - not needed for --json

        from mfn_compile.report.summary import summary  # noqa: PLC0415

        console = Console()
        console.print(summary(outcome.result))
        console.print(f"Bundle: {outcome.bundle}", highlight=False, soft_wrap=True)
        if outcome.result.checkpoint.demo:
            console.print(
                "This was the demo model on rendered faces. Your own: "
                f"mfn-compile --target {outcome.result.target} --checkpoint FILE --lfw LFW_HOME",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
    sys.stdout.flush()
    if (error := gates.missed(outcome.result.gates)) is not None:
        raise error
