"""The side of a session that talks to TVM, in a process of its own that can be ended.

TVM's calls block for as long as the board is silent, so nothing here has a time limit: who started
this process ends it. It says that TVM is loaded, then reads lines of JSON, first one about the
board, then one a job, and answers each by one line.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO

WORK, FUNCTION = "tvm.rpc.server.workpath", "mfn_board"
# What TVM raises: its own errors are RuntimeErrors, and a board may send any of the others.
RAISED = (RuntimeError, OSError, ValueError, TypeError, AttributeError, KeyError, IndexError)


class _Failed(Exception):
    """A step that failed; ends the process."""

    def __init__(self, step: str, text: str) -> None:
        super().__init__(text)
        self.step, self.text = step, text


def main() -> int:
    """Serve one session; 0 when its input has ended."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever TVM prints is no answer
    try:
        _serve(out)
    except _Failed as error:
        _say(out, {"failed": error.step, "text": error.text})
        return 1
    return 0


def _say(out: TextIO, message: dict[str, Any]) -> None:
    out.write(json.dumps(message) + "\n")
    out.flush()


def _serve(out: TextIO) -> None:
    from tvm import rpc  # noqa: PLC0415 - takes seconds, and only this process needs it

    _say(out, {"loaded": True})
    wanted = json.loads(sys.stdin.readline())
    host, port, word = wanted["host"], wanted["port"], wanted["word"]
    session = _try("connect", rpc.connect, host, port, word, session_timeout=wanted["seconds"])
    work = _try("old", lambda: str(session.get_function(WORK)("")))
    for name, path in wanted["files"].items():
        _upload(session, name, path)
    _say(out, {"ready": True})
    functions: dict[str, Any] = {}
    for line in sys.stdin:
        job = json.loads(line)
        library = job["library"]
        if library not in functions:
            module = _try("load", session.load_module, library)
            functions[library] = _try("load", lambda m=module: m[FUNCTION])
        limits = (job["warm_up"], job["repeats"], job["budget_ms"])
        code = int(_try("run", functions[library], work, job["number"], *limits))
        content = "" if code else bytes(_try("run", session.download, wanted["result"])).decode(
            "ascii", errors="replace"
        )  # fmt: skip
        _say(out, {"code": code, "content": content})


def _upload(session: Any, name: str, path: str) -> None:
    """Send a file and read it back: TVM's server does not say when its disk is full."""
    with open(path, "rb") as handle:
        content = handle.read()
    _try("upload", session.upload, bytearray(content), name)
    if bytes(_try("upload", session.download, name)) != content:
        raise _Failed("space", f"{name} has {len(content)} bytes and did not arrive whole")


def _try(step: str, action: Any, *arguments: Any, **options: Any) -> Any:
    try:
        return action(*arguments, **options)
    except RAISED as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise _Failed(step, " / ".join(lines[-3:])[-600:] or type(error).__name__) from error


if __name__ == "__main__":
    sys.exit(main())
