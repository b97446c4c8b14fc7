"""The in-order model against cycles counted by hand."""

from __future__ import annotations

import pytest

from mfn_compile.device.inorder import InOrder, steady
from mfn_compile.device.operation import InOrderCore, decode
from tests.device.programs import instruction

SUMS = [f"fmla v{i}.4s, v20.4s, v21.4s" for i in range(4)]


def cycles(lines: list[str], core: InOrderCore) -> float:
    parsed = [instruction(line) for line in lines]
    return steady([decode(one.mnemonic, one.operands, core) for one in parsed])


@pytest.mark.parametrize(
    ("lines", "a53", "a55"),
    [
        # Two a cycle; a chain goes one by one.
        (["add x0, x1, x2", "add x3, x4, x5"], 1, 1),
        (["add x0, x0, #1", "add x0, x0, #1"], 2, 2),
        (["add w0, w0, #1", "add x0, x0, #1"], 2, 2),
        # Flags: the branch waits for them, and pairs with what follows.
        (["subs x0, x0, #1", "b.ne #0"], 1, 1),
        (["add x3, x4, x5", "subs x0, x0, #1", "add x6, x7, x8", "b.ne #0"], 2, 2),
        # A multiplication takes three cycles until it is needed, and a load as well.
        (["mul x0, x0, x1"], 3, 3),
        (["ldr x0, [x0]"], 3, 3),
        # 128-bit arithmetic: one a cycle, with something scalar beside it.
        (SUMS, 4, 4),
        ([line for s in SUMS for line in (s, "add x1, x2, x3")], 4, 4),
        # 64-bit arithmetic: two a cycle.
        (["mul v0.2s, v1.2s, v2.2s", "mul v3.2s, v4.2s, v5.2s"], 1, 1),
        # A sum goes on after four cycles; another reader waits eight on the A53.
        (["fmla v0.4s, v1.4s, v2.4s"], 4, 4),
        (["fmla v0.4s, v1.4s, v2.4s", "fadd v3.4s, v0.4s, v4.4s"], 9, 5),
        (["sdot v0.4s, v1.16b, v2.4b[0]"], 4, 4),
        (["smull2 v0.8h, v1.16b, v2.16b"], 1, 1),
        (["xtn2 v0.16b, v1.8h"], 2, 2),
        # 128-bit loads stop everything for two cycles, pairs for four.
        (["ldr q0, [x0]"], 2, 2),
        (["ldr q0, [x0]", "add x1, x2, x3"], 3, 3),
        (["ldp q0, q1, [x0]"], 4, 4),
        (["ld1 {v0.16b, v1.16b}, [x0]"], 4, 4),
        (["ldr q0, [x0], #16"], 2, 2),
        # 64-bit loads pair with arithmetic on the A55 alone.
        ([line for s in SUMS for line in (s, "ldr d9, [x0]")], 8, 4),
        ([line for s in SUMS for line in (s, "ldr d9, [x0], #8")], 8, 4),
        (["ldr d9, [x0]", "mul v0.2s, v1.2s, v2.2s"], 2, 1),
        (["ldp d0, d1, [x0]"], 2, 2),
        (["ldp d0, d1, [x0]", "add x1, x2, x3", "add x4, x5, x6"], 3, 2),
        # Interleaved, repeated and single ones.
        (["ld2 {v0.4s, v1.4s}, [x0]"], 4, 4),
        (["ld4 {v0.4s, v1.4s, v2.4s, v3.4s}, [x0]"], 9, 9),
        (["ld1r {v0.4s}, [x0]"], 1, 1),
        (["ld1 {v0.8b}, [x0]"], 1, 1),
        (["ld1 {v0.8b, v1.8b}, [x0]"], 2, 2),
        (["st2 {v0.4s, v1.4s}, [x0]"], 2, 2),
        (["prfm pldl1keep, [x0]", "add x1, x2, x3"], 1, 1),
        # To a general register, and a table lookup.
        (["umov w0, v1.s[0]", "add x2, x0, x3"], 3, 3),
        (["tbl v0.8b, {v1.16b}, v2.8b", "tbl v3.8b, {v4.16b}, v5.8b"], 2, 2),
        # Stores of vectors begin a cycle; a store pair holds the port.
        (["str q0, [x0]", "add x1, x2, x3"], 1, 1),
        (["stp q0, q1, [x0]"], 2, 2),
        # One load a cycle, one store a cycle.
        (["ldr x0, [x9]", "ldr x1, [x9]"], 2, 2),
        (["ldr x0, [x9]", "str x1, [x8]"], 1, 1),
        # A division keeps the vector pipes.
        (["fdiv v0.2s, v1.2s, v2.2s"], 10, 10),
        (["fdiv v0.4s, v1.4s, v2.4s"], 20, 20),
    ],
)
def test_cycles_as_counted_by_hand(lines: list[str], a53: float, a55: float) -> None:
    assert cycles(lines, "a53") == a53
    assert cycles(lines, "a55") == a55


def test_a_lane_is_filled_from_a_general_register_beside_arithmetic() -> None:
    """The A55's trick for operands of fmla by lane: load to x, insert, all beside arithmetic."""
    lines = [line for i, s in enumerate(SUMS) for line in (s, f"mov v{9 + i}.d[1], x1")]
    assert cycles(lines, "a55") == 4


def test_a_lane_load_reads_the_register_that_it_changes() -> None:
    operation = decode("ld1", "{v0.s}[1], [x2], #4", "a55")
    assert operation.reads == {"v0", "x2"}
    assert operation.writes == {"v0"}
    assert operation.steps == {"x2"}


def test_a_pointer_that_a_scalar_load_changes_is_as_late_as_what_it_loads() -> None:
    scalar, vector = (decode("ldr", f"{r}, [x30], #8", "a55") for r in ("x25", "d3"))
    assert scalar.writes == {"x25", "x30"}
    assert not scalar.steps
    assert (vector.writes, vector.steps) == ({"v3"}, {"x30"})


def test_a_comparison_writes_flags_only() -> None:
    operation = decode("cmp", "x1, x2", "a53")
    assert operation.reads == {"x1", "x2"}
    assert operation.writes == {"flags"}
    assert decode("fcmp", "s1, s2", "a53").writes == {"flags"}
    assert decode("csel", "x0, x1, x2, eq", "a53").reads == {"x1", "x2", "flags"}


def test_a_store_writes_nothing_but_its_pointer() -> None:
    operation = decode("stp", "x29, x30, [sp, #-0x20]!", "a53")
    assert operation.reads == {"x29", "x30", "sp"}
    assert not operation.writes
    assert operation.steps == {"sp"}


def test_no_block_takes_no_time() -> None:
    assert InOrder("a53").cycles([]) == []
    assert steady([]) == 0
