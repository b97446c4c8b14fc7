"""`--device`: which device a run is timed on."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from mfn_compile.boards import Board, BoardCore
from mfn_compile.device.board import Core, cores, find_core
from mfn_compile.device_result import Milliseconds
from mfn_compile.errors import BadInputError, UsageError
from mfn_compile.target import Target, list_targets, load_target

LOCAL, RPC, VIRTUAL = "local", "rpc://", "virtual:"
FORMS = "virtual:NAME, rpc://HOST:PORT/KEY or local"
SIGMAS = 2  # geometric deviations on either side: 95 % of a log-normal error


@dataclass(frozen=True)
class VirtualDevice:
    """A core under QEMU, alone or as one of a board's.

    Attributes:
        name: as it was asked for, without virtual:.
        core: its model.
        board: None for a core alone.
        entry: the board's clock and calibration for the core.
    """

    name: str
    core: Core
    board: Board | None = None
    entry: BoardCore | None = None

    @property
    def title(self) -> str:
        """Board, core and clock, as a report prints them."""
        core = core_title(self.core.name)
        if self.board is None or self.entry is None:
            return core
        return f"{self.board.title}, {core} {self.entry.clock_ghz:g} GHz"

    def milliseconds(self, cycles: float) -> Milliseconds | None:
        """Modelled time of so many modelled cycles; None without a calibrated board."""
        if self.entry is None or self.entry.calibration is None:
            return None
        found = self.entry.calibration
        value = cycles / (self.entry.clock_ghz * 1e6) / found.ratio
        margin = found.spread**SIGMAS
        return Milliseconds(value=value, low=value / margin, high=value * margin)


def core_title(name: str) -> str:
    """cortex-a72 as Arm writes it."""
    return "-".join(part.capitalize() for part in name.split("-"))


def parse_virtual(text: str) -> VirtualDevice:
    """The device of `virtual:NAME` or `virtual:BOARD/CORE`.

    NAME is a core that has a model, a target with a [board], or the path of a target's TOML. Behind
    a board, /CORE chooses one of its cores; without it the first one is taken.

    Raises:
        UsageError: the text has another form.
        BadInputError: there is no such core or board, or it names a core without a model.
    """
    name = text.removeprefix(VIRTUAL)
    if name == text or not name:
        raise UsageError(
            f"{text!r} is no virtual device", hint="Write virtual:raspberry-pi-4 or virtual:CORE"
        )
    if any(core.name == name for core in cores()):
        return VirtualDevice(name, find_core(name))
    place, toml, core = name.partition(".toml")
    if toml and (not core or core.startswith("/")):
        return _on_board(name, load_target(place + toml), core[1:] or None)
    wanted, slash, chosen = name.partition("/")
    if slash and not chosen:
        raise UsageError(f"{text!r} names no core", hint=f"Write {VIRTUAL}{wanted}, or a core")
    target = next((t for t in list_targets() if t.name == wanted), None)
    if target is None or target.board is None:
        raise _unknown(wanted, target)
    return _on_board(name, target, chosen or None)


def _on_board(name: str, target: Target, chosen: str | None) -> VirtualDevice:
    if target.board is None:
        raise _unknown(target.name, target)
    for entry in target.board.cores:
        if chosen is None or entry.core == chosen:
            core = find_core(entry.core)
            caches = {k: v for k, v in (("l1", entry.l1), ("l2", entry.l2)) if v is not None}
            return VirtualDevice(name, core.model_copy(update=caches), target.board, entry)
    raise BadInputError(
        f"{target.board.title} has no core {chosen!r}",
        hint=f"It has {', '.join(entry.core for entry in target.board.cores)}",
    )


def _unknown(name: str, target: Target | None) -> BadInputError:
    boards = [found.name for found in list_targets() if found.board is not None]
    known = [core.name for core in cores()] + boards
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    no_board = f"The target {name!r} is no board: it has no [board] section"
    return BadInputError(
        f"There is no virtual board named {name!r}" if target is None else no_board,
        why=f"there are {', '.join(known)}",
        hint=f"Did you mean {near[0]!r}?" if near else "Or give the path of a TOML with a [board]",
    )


def target_device(target: Target, place: str) -> str | None:
    """The virtual board of a target that is one; `place` is how the target was named."""
    return f"{VIRTUAL}{place}" if target.board is not None else None
