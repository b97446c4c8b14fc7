"""`rpc://HOST:PORT/KEY`: where TVM's tracker listens, and the key that the boards have there."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mfn_compile.errors import UsageError

SCHEME = "rpc://"
FORM = "Write rpc://HOST:PORT/KEY, like rpc://127.0.0.1:9190/pi4"
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252})")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]{2,45}(%[A-Za-z0-9._-]{1,32})?")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class RpcAddress:
    """A tracker and the key of the boards that are asked.

    Attributes:
        host: name or address, an IPv6 one without its brackets.
        port: of the tracker.
        key: what the boards registered as.
    """

    host: str
    port: int
    key: str

    @classmethod
    def parse(cls, text: str) -> RpcAddress:
        """The address of a text; an IPv6 host stands in brackets.

        Raises:
            UsageError: it has another form; the message says what is wrong.
        """
        if not text.startswith(SCHEME):
            raise UsageError(f"{text!r} is no address of a board", hint=FORM)
        place, slash, key = text.removeprefix(SCHEME).partition("/")
        host, colon, port = place.rpartition(":")
        if not slash or not key:
            raise _wrong(text, "the key of the board is missing")
        if not _KEY.fullmatch(key):
            raise _wrong(text, "a key has letters, digits, '.', '_' and '-', at most 64 of them")
        if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 1 << 16:
            raise _wrong(text, "the port must be a number from 1 to 65535")
        return cls(_host(text, host), int(port), key)

    @property
    def tracker(self) -> str:
        """HOST:PORT as people write it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{SCHEME}{self.tracker}/{self.key}"


def _host(text: str, host: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        inner = host[1:-1]
        if ":" in inner and _IPV6.fullmatch(inner):
            return inner
        raise _wrong(text, "what is in brackets is no IPv6 address")
    if ":" in host:
        raise _wrong(text, "an IPv6 address stands in brackets, like [::1]")
    if not _HOST.fullmatch(host):
        raise _wrong(text, "the host is no name and no address")
    return host


def _wrong(text: str, why: str) -> UsageError:
    return UsageError(f"{text!r} is no address of a board", why=why, hint=FORM)
