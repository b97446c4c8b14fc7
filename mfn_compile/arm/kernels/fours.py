"""The `neon` tile of four rows whose weights let four products add up in 16 bits.

A step has 32 input channels, twice as many as in `micro.py`, and one widening addition instead of
two: five instructions for what takes six there. Where the channels are no multiple of 32, a step of
16 begins. Two rows meet two columns at a time, so that half of the operands are free while the
others are in use: a load goes beside every instruction, and none waits.

Registers are those of `micro.py`; v4-v7 hold the weights of two columns, x24 and x25 are offsets
into the rows as well, and the pointers to the last two rows, which are loaded a step later, lie a
step before them (`BACK`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from mfn_compile.arm.kernels import micro
from mfn_compile.arm.kernels.micro import COUNT, Line, Tile
from mfn_compile.arm.kernels.operands import OFFSETS, WEIGHTS, Loader, Operand, Step, interleave

DEEP = 32  # input channels of one step
_Line = tuple[str, tuple[Operand, ...]]  # arithmetic and the operands that it reads
_SUMS = range(4)  # rows, and columns
_PAIRS = ((0, 1), (2, 3))
_PARTS = (0, 1)  # of a step: 16 channels each
_CARRIERS = tuple(r for r in micro.CARRIERS["neon"] if r not in OFFSETS)
_WEIGHTS = DEEP * len(_SUMS)  # bytes of a step
_LATE_ROWS = tuple(f"x{i}" for i in _PAIRS[1])
BACK = tuple(f"sub {row}, {row}, {DEEP}" for row in _LATE_ROWS)  # before a loop of tiles
FORTH = tuple(f"add {row}, {row}, {DEEP}" for row in _LATE_ROWS)  # behind it


def program(tile: Tile) -> list[str]:
    """The instructions; without the last step, unless it is the only one."""
    steps = tile.k // DEEP
    if tile.k % DEEP:
        lines, middle = _short(tile), steps - 1
    else:
        lines, middle = _body(tile, first=True, last=steps == 1), max(steps - 2, 0)
    if middle > 1:
        lines += [f"mov {COUNT}, {middle}", "1:", f"subs {COUNT}, {COUNT}, 1"]
        return [*lines, *_body(tile), "b.ne 1b"]
    return lines + (_body(tile) if middle else [])


def last_step(tile: Tile) -> list[Step]:
    """What `program` leaves out; late operands are not loaded yet."""
    operands = _operands()
    rows = tuple(
        tuple(replace(o, offset=tile.k + o.offset) if o.late else o for o in part)
        for part in operands.rows
    )
    lines = _arithmetic(replace(operands, rows=rows), first=False)
    return [Step(text, uses) for text, uses in lines]


@dataclass(frozen=True)
class _Operands:
    """What a step reads: 16 bytes of each row, and of each column's weights, by [part][index]."""

    rows: tuple[tuple[Operand, ...], ...]
    columns: tuple[tuple[Operand, ...], ...]


def _operands() -> _Operands:
    """From where the pointers are; the second pair of rows, and of columns, is late."""
    rows = tuple(
        tuple(Operand(i + 12 * part, f"x{i}", 16 * part, late=i in _PAIRS[1]) for i in _SUMS)
        for part in _PARTS
    )
    columns = tuple(
        tuple(
            Operand(4 + 2 * (j % 2) + part, WEIGHTS, 64 * part + 16 * j, late=j in _PAIRS[1])
            for j in _SUMS
        )
        for part in _PARTS
    )
    return _Operands(rows, columns)


def _behind(operands: _Operands, *, first: bool) -> _Operands:
    """The same ones once the pointer to the weights is a step further."""
    columns = tuple(
        tuple(replace(o, offset=o.offset - _WEIGHTS) for o in part) for part in operands.columns
    )
    if not first:
        return replace(operands, columns=columns)
    rows = tuple(tuple(_begun(o) for o in part) for part in operands.rows)
    return _Operands(rows, columns)


def _begun(row: Operand) -> Operand:
    """An operand of the first step, at a distance from the row's own pointer."""
    return replace(row, first=True, offset=row.offset + (DEEP if row.base in _LATE_ROWS else 0))


def _arithmetic(of: _Operands, *, first: bool) -> list[_Line]:
    """One step: products of two rows and two columns side by side, so that none waits."""
    found: list[_Line] = []
    for columns, rows in product(_PAIRS, _PAIRS):
        places = [(8 + at, i, j) for at, (j, i) in enumerate(product(columns, rows))]
        for part in _PARTS:
            for multiply, lanes in (("smlal" if part else "smull", "8b"), ("smlal2", "16b")):
                for t, i, j in places:
                    a, b = of.rows[part][i], of.columns[part][j]
                    text = f"{multiply} v{t}.8h, v{a.register}.{lanes}, v{b.register}.{lanes}"
                    found.append((text, (a, b)))
        add = "saddlp" if first else "sadalp"
        found += [(f"{add} v{16 + 4 * i + j}.4s, v{t}.8h", ()) for t, i, j in places]
    return found


def _reads(lines: Sequence[_Line]) -> list[Operand]:
    """The operands in the order in which they are read first."""
    return list(dict.fromkeys(operand for _, uses in lines for operand in uses))


def _body(tile: Tile, *, first: bool = False, last: bool = False) -> list[str]:
    """One step; beside its arithmetic its late operands are loaded, and others of the next step."""
    following = _operands()
    lines = _arithmetic(_behind(following, first=first), first=first)
    initial = [o for o in _reads(lines) if first and not o.late]
    late = [o for o in _reads(lines) if o.late]
    ahead = _reads(_arithmetic(following, first=False))
    ahead = [] if last else [o for o in ahead if not o.late]
    free = {o: _free(lines, o) for o in (*late, *ahead)}
    loaded = {*initial, *late}
    steps = [Step(text, tuple(o for o in uses if o in loaded)) for text, uses in lines]
    rest = sorted([*late, *ahead], key=lambda o: free[o])
    loaders = [_loader(tile, initial, {}, whole=True)] if initial else []
    loaders.append(_loader(tile, rest, free))
    return _advance(tile, first=DEEP if first else 0) + interleave(steps, loaders)


def _free(lines: Sequence[_Line], operand: Operand) -> int:
    """The last instruction that reads what the load of an operand overwrites, or -1.

    An operand that the step itself reads is loaded before that.
    """
    own = [at for at, (_, uses) in enumerate(lines) if operand.late and operand in uses]
    before = lines[: own[0]] if own else lines
    readers = [
        at
        for at, (_, uses) in enumerate(before)
        if operand.register in {other.register for other in uses}
    ]
    return readers[-1] if readers else -1


def _short(tile: Tile) -> list[str]:
    """A step of 16 channels that begins the sums."""
    operands = micro.operands(tile, 0)
    by = {
        o.register: replace(o, offset=o.offset - 64) if o.base == WEIGHTS else _begun(o)
        for o in operands
    }
    lines: list[Line] = micro.arithmetic(tile, 0, first=True)
    used = {register: at for at, (_, uses) in enumerate(lines) for register in uses}
    ahead = [o for o in _reads(_arithmetic(_operands(), first=False)) if not o.late]
    free = {o: used.get(o.register, -1) for o in ahead}
    steps = [Step(text, tuple(by[register] for register in uses)) for text, uses in lines]
    loaders = [
        _loader(tile, list(by.values()), {}, whole=True),
        _loader(tile, sorted(ahead, key=lambda o: free[o]), free),
    ]
    return _advance(tile, first=micro.DEEP) + interleave(steps, loaders)


def _loader(
    tile: Tile, order: Sequence[Operand], free: Mapping[Operand, int], *, whole: bool = False
) -> Loader:
    return Loader(order, free, loads=tile.loads, carriers=_CARRIERS, gap=tile.gap, whole=whole)


def _advance(tile: Tile, *, first: int) -> list[str]:
    """To the next step's operands; `first` are the channels of the step that begins."""
    halves = OFFSETS[:: 2 if tile.loads == "whole" else 1]
    if not first:
        lines = [f"add {offset}, {offset}, {DEEP}" for offset in halves]
        return [*lines, f"add {WEIGHTS}, {WEIGHTS}, {_WEIGHTS}"]
    starts = [f"mov {offset}, {first + 8 * OFFSETS.index(offset)}" for offset in halves]
    return [*starts, f"add {WEIGHTS}, {WEIGHTS}, {first * len(_SUMS)}"]
