"""Straight-line code computes the same whatever the order that suits a core."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from mfn_compile.arm.kernels.straight import Code

_SUM = "fadd {0}.4s, {1}.4s, {2}.4s"
_FUSED = "fmla {0}.4s, {1}.4s, {2}.4s"
_PLACE = re.compile(r"\[(\w+), (\d+)\]")
_MOST = 24  # values at once
Value = object


def run(lines: list[str]) -> dict[tuple[str, int], Value]:
    """What is stored where, as expressions of what was loaded; a vector is a pair of halves."""
    moved = {"in": 0, "out": 0}
    known: dict[str, tuple[Value, Value]] = {}
    stored: dict[tuple[str, int], Value] = {}
    for line in lines:
        name, _, rest = line.partition(" ")
        target, *others = re.findall(r"\b[vqdx]\d+\b", rest)[:3] or [""]
        target, others = target.replace("q", "v").replace("d", "v"), others
        place = _PLACE.search(rest)
        if name == "add" and not target:
            moved[rest.split(",")[0]] += int(rest.rsplit(", ", 1)[1])
        elif place:
            base, offset = place[1], int(place[2]) + moved[place[1]]
            if name == "str":
                stored[base, offset] = known[target]
            else:
                high = (base, offset + 8) if rest.startswith("q") else 0
                known[target] = ((base, offset), high)
        elif name == "ins":
            half = int(rest[rest.index("[") + 1])
            pair = list(known.get(target, (0, 0)))
            pair[half] = known[others[-1]][0]
            known[target] = (pair[0], pair[1])
        else:
            first = [known[target]] if name == "fmla" else []
            expression = (name, *first, *(known[other] for other in others))
            known[target] = (expression, expression)
    return stored


@st.composite
def programs(draw: st.DrawFn) -> list[tuple[str, int, int, int]]:
    """(kind, three choices among the values at hand) of each instruction."""
    kinds = st.sampled_from(["load", "load", "load", "sum", "sum", "fused", "store"])
    choice = st.integers(0, 99)
    return draw(st.lists(st.tuples(kinds, choice, choice, choice), min_size=5, max_size=120))


def build(program: list[tuple[str, int, int, int]], code: Code) -> Code:
    """Values are used up where they are read first, but for those that `fmla` multiplies."""
    pool: list[int] = []
    for at, (kind, *choices) in enumerate(program):
        if kind == "load" and len(pool) < _MOST:
            pool.append(code.load("in", 16 * at))
        elif kind == "store" and pool:
            code.store(pool.pop(choices[0] % len(pool)), "out", 8 * at)
        elif kind == "sum" and len(pool) > 1:
            a, b = (pool.pop(choice % len(pool)) for choice in choices[:2])
            pool.append(code.make(_SUM, a, b))
        elif kind == "fused" and len(pool) > 2:
            first = pool.pop(choices[0] % len(pool))
            a, b = (pool[choice % len(pool)] for choice in choices[1:])
            pool.append(code.change(_FUSED, first, a, b))
    for at, value in enumerate(pool):
        code.store(value, "out", 8 * (len(program) + at))
    code.advance("in", 16)
    return code


@given(program=programs())
@settings(max_examples=40, deadline=None)
def test_every_order_computes_the_same(program: list[tuple[str, int, int, int]]) -> None:
    plain = run(build(program, Code("whole")).program())
    assert run(build(program, Code("halves")).program()) == plain
    assert run(build(program, Code("general")).program()) == plain


def test_what_others_read_is_overwritten_last() -> None:
    program = [("load", 0, 0, 0)] * 3 + [("fused", 2, 0, 0), ("fused", 0, 0, 0)]
    plain = run(build(program, Code("whole")).program())
    assert run(build(program, Code("halves")).program()) == plain


def test_loads_go_beside_arithmetic_in_order() -> None:
    code = Code("halves")
    values = [code.load("in", 16 * i) for i in range(12)]
    total = values[0]
    for value in values[1:]:
        total = code.make(_SUM, total, value)
    code.store(total, "out", 0)
    names = [line.partition(" ")[0] for line in code.program()]
    assert names.index("fadd") < 12 < len(names) - names[::-1].index("ldr")
