"""What can go wrong with a board, each with its name and what to do."""

from __future__ import annotations

import re

from mfn_compile.errors import DeviceError, InternalCheckError, MfnError

RESUME = "Run the same command again: what is finished is kept"
_CODES = {
    1: ("The board has too little memory for the library", "Close other programs there"),
    2: ("The golden vectors did not arrive whole on the board", "Free some space there"),
    3: ("The board cannot write its answer: no space is left", "Free some space there"),
}
_OTHER_VERSION = re.compile(r"version mismatch|protocol=", re.IGNORECASE)
_FOREIGN = re.compile(
    r"wrong ELF class|invalid ELF header|cannot open shared|e_machine|exec format"
)


def lost(where: str, doing: str, why: str = "") -> DeviceError:
    """The connection broke."""
    return DeviceError(
        f"The board was lost {doing}",
        where=where,
        why=why or "its server ended, it was restarted, or the network failed",
        hint=f"See what its server printed, start it again. {RESUME}",
    )


def hung(where: str, doing: str) -> DeviceError:
    """It did not answer in time."""
    return DeviceError(
        f"The board did not answer in time {doing}",
        where=where,
        why="it hangs, or is slower than the time that was allowed",
        hint=f"Restart its server, or allow more time. {RESUME}",
    )


def damaged(where: str) -> DeviceError:
    """An answer that no program of ours gives."""
    return DeviceError(
        "The board's answer cannot be understood", where=where, hint="Restart its server"
    )


def code_failed(where: str, code: int) -> MfnError:
    """The exit code of board.c."""
    if code in _CODES:
        what, hint = _CODES[code]
        return DeviceError(what, where=where, hint=f"{hint}. {RESUME}")
    return InternalCheckError(
        "The library refused a call on the board",
        where=where,
        why=f"the program that measures ended with {code}",
        hint="Report it with the command that you ran",
    )


def step_failed(where: str, step: object, text: str, doing: str) -> DeviceError:
    """TVM raised an error in a step of client.py."""
    if step == "connect":
        return _refused(where, text)
    if step == "space" or (step in ("upload", "run") and "No space left" in text):
        return DeviceError(
            "No space is left on the board",
            where=where,
            why=text,
            hint=f"Free some in its folder for temporary files. {RESUME}",
        )
    if step == "old":
        return _old(where, text)
    if step == "load" and not _is_broken(text):
        return _unloadable(where, text)
    return lost(where, doing, text)


def _is_broken(text: str) -> bool:
    """Whether a text tells of the connection, not of the library."""
    return any(word in text.lower() for word in ("socket", "connection", "channel", "shutdown"))


def _refused(where: str, text: str) -> DeviceError:
    if _OTHER_VERSION.search(text):
        return _old(where, text)
    return DeviceError(
        "The board refused the connection",
        where=where,
        why=text,
        hint="Its server ended, or its port is closed to this machine: restart it, and see to the "
        "firewall",
    )


def _old(where: str, text: str) -> DeviceError:
    return DeviceError(
        "The board has another version of TVM",
        where=where,
        why=text,
        hint="Install the wheels there that tools/board_server.py --check names",
    )


def _unloadable(where: str, text: str) -> DeviceError:
    if "GLIBC_" in text:
        return DeviceError(
            "The board's C library is too old",
            where=where,
            why=text,
            hint="Update its system; glibc 2.17 is enough where a cross compiler links the library",
        )
    if _FOREIGN.search(text):
        return DeviceError(
            "The board cannot load the library: it is for another architecture",
            where=where,
            why=text,
            hint="Use a board with 64-bit ARM and a 64-bit system on it",
        )
    return DeviceError(
        "The board cannot load the library",
        where=where,
        why=text,
        hint="See what its server printed",
    )
