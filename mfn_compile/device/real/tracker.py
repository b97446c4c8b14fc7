"""Asks TVM's RPC tracker for boards, and never waits longer than allowed.

TVM's own client blocks without a limit, and tries a tracker that is not there for a minute. The
protocol is small: a magic number both ways, then JSON texts, each behind its length.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any

from mfn_compile.device.real.address import RpcAddress
from mfn_compile.errors import DeviceError

MAGIC = 0x2F271  # tvm.rpc.base.RPC_TRACKER_MAGIC
SUCCESS, REQUEST, SUMMARY = 0, 4, 6  # tvm.rpc.base.TrackerCode
LONGEST = 1 << 20  # bytes of an answer
CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class Place:
    """A server that the tracker gave us, and the word that lets us in once."""

    host: str
    port: int
    word: str

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def count_boards(address: RpcAddress, seconds: float) -> int:
    """How many boards have registered with the key, busy ones too.

    Raises:
        DeviceError: the tracker cannot be reached, is none, or does not answer; or nobody has
            the key, then the message lists the keys that there are.
    """
    with _Session(address, seconds) as session:
        servers = session.ask([SUMMARY]).get("server_info", [])
    keys = [str(one.get("key", "")).removeprefix("server:") for one in servers]
    if address.key not in keys:
        known = ", ".join(sorted(set(keys)))
        raise DeviceError(
            f"No board is registered as {address.key!r}",
            where=f"the tracker at {address.tracker}",
            why=f"it knows {known}" if known else "it knows no board at all",
            hint=f"Run tools/board_server.py --key {address.key} on the board",
        )
    return keys.count(address.key)


def request_board(address: RpcAddress, seconds: float) -> Place:
    """A board that is free, waiting for one as long as allowed.

    Raises:
        BusyError: every board stayed busy.
        DeviceError: the tracker failed as above.
    """
    with _Session(address, seconds) as session:
        try:
            answer = session.ask([REQUEST, address.key, "", 1])
        except _SlowError as error:
            raise BusyError(
                f"Every board registered as {address.key!r} is busy, or lost",
                where=f"the tracker at {address.tracker}",
                why=f"it gave none within {seconds:.0f} seconds",
                hint="Wait for the others, allow more time, or restart the board's server",
            ) from error
    try:
        host, port, word = answer
        return Place(str(host), int(port), str(word))
    except (TypeError, ValueError) as error:
        raise _strange(address, f"it answered {str(answer)[:80]!r}") from error


class BusyError(DeviceError):
    """Boards are there, and none is free."""


class _SlowError(DeviceError):
    """The tracker did not answer in time."""


class _Session:
    """One conversation with a tracker."""

    def __init__(self, address: RpcAddress, seconds: float) -> None:
        self._address = address
        self._end = time.monotonic() + seconds
        try:
            limit = min(seconds, CONNECT_SECONDS)
            self._socket = socket.create_connection((address.host, address.port), timeout=limit)
        except OSError as error:
            raise DeviceError(
                "The tracker cannot be reached",
                where=address.tracker,
                why=error.strerror or str(error),
                hint="Check host, port and firewall; if it does not run, start it: "
                "python tools/board_server.py --tracker-only --tracker HOST:PORT",
            ) from error

    def __enter__(self) -> _Session:
        try:
            self._talk(lambda: self._socket.sendall(struct.pack("<i", MAGIC)))
            if struct.unpack("<i", self._receive(4))[0] != MAGIC:
                raise _strange(self._address, "it does not answer as one")
        except DeviceError:
            self._socket.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, message: list[Any]) -> Any:
        """What the tracker answers beside that it understood."""
        text = json.dumps(message).encode()
        self._talk(lambda: self._socket.sendall(struct.pack("<i", len(text)) + text))
        size = struct.unpack("<i", self._receive(4))[0]
        if not 0 < size <= LONGEST:
            raise _strange(self._address, f"an answer of {size} bytes")
        try:
            code, value = json.loads(self._receive(size))
        except (ValueError, TypeError) as error:
            raise _strange(self._address, "its answer is no JSON that we know") from error
        if code != SUCCESS:
            raise _strange(self._address, f"it refused with {code!r}")
        return value

    def _receive(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            missing = count - len(found)
            part = self._talk(lambda size=missing: self._socket.recv(size))
            if not part:
                raise _strange(self._address, "it closed the connection")
            found += part
        return found

    def _talk(self, action: Any) -> Any:
        left = self._end - time.monotonic()
        with contextlib.suppress(OSError):
            self._socket.settimeout(max(left, 0.001))
        try:
            return action()
        except TimeoutError as error:
            raise _SlowError(
                "The tracker does not answer",
                where=self._address.tracker,
                hint="Restart it",
            ) from error
        except OSError as error:
            raise _strange(self._address, error.strerror or str(error)) from error


def _strange(address: RpcAddress, why: str) -> DeviceError:
    return DeviceError(
        "What listens there is no tracker of TVM, or it failed",
        where=address.tracker,
        why=why,
        hint="Give the tracker's port (9190 by default), not that of a board's server",
    )
