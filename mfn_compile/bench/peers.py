"""The table of peers: peers.toml, checked."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from pydantic import Field

from mfn_compile.errors import UsageError
from mfn_compile.frozen import Frozen
from mfn_compile.tomlfile import load_model


class Variant(Frozen):
    """One way to run a peer."""

    precision: str = Field(pattern=r"^[a-z0-9-]+$", description="f32, f16 or int8, and a kind")
    half: bool = Field(default=False, description="only on cores with half precision arithmetic")
    method: str = Field(default="", description="of the quantizer")


class Peer(Frozen):
    """One engine."""

    name: str = Field(pattern=r"^[a-z]+$")
    title: str
    site: tuple[str, ...] = Field(description="pinned AArch64 wheels, in opt/site-NAME")
    host: tuple[str, ...] = Field(description="pinned packages of its environment on this machine")
    libraries: tuple[str, ...] = Field(description="patterns of files that are its runtime")
    converter: str
    variants: tuple[Variant, ...] = Field(min_length=1)


class _Peers(Frozen):
    peer: tuple[Peer, ...]


@cache
def peers() -> tuple[Peer, ...]:
    """Every peer there is."""
    return load_model(Path(__file__).with_name("peers.toml"), _Peers, "table of peers").peer


def find_peers(names: Sequence[str]) -> tuple[Peer, ...]:
    """The peers of those names, in that order, each once.

    Raises:
        UsageError: there is no such peer; the message lists those that there are.
    """
    known = {peer.name: peer for peer in peers()}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise UsageError(
                f"There is no peer named {name!r}",
                why=f"The peers are {', '.join(known)}",
                hint=f"Did you mean {near[0]!r}?" if near else "Choose from these",
            )
    return tuple(known[name] for name in dict.fromkeys(names))
