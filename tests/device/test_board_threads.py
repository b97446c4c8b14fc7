"""Several cores in the model: tasks laid on threads."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfn_compile.arm.firmware.parts import FILE, Parts, VariantParts, read_parts
from mfn_compile.device.profile import Profile
from mfn_compile.device.threads import team_cost
from mfn_compile.device_result import KernelCost
from mfn_compile.errors import BadInputError

PARTS = VariantParts.model_validate(
    {
        "variant": "neon",
        "phases": [
            {"layers": ["a"], "calls": [{"kernel": "gemm_a", "parts": [2, 2, 1, 1]}]},
            {
                "layers": ["b", "c"],
                "calls": [
                    {"kernel": "depthwise_b", "parts": [1, 1]},
                    {"kernel": "gemm_a", "parts": [3, 3]},
                ],
            },
            {"layers": ["d"], "calls": [{"kernel": "gemm_d", "parts": [1]}]},
        ],
    }
)
COSTS = {"gemm_a": 12_000.0, "depthwise_b": 2_000.0, "gemm_d": 500.0}


def profile(costs: dict[str, float], memcpy: float = 400.0, rest: float = 100.0) -> Profile:
    rows = [
        KernelCost(kernel=name, in_library=name != "memcpy", layers=1, calls=1, share=0, cycles=c)
        for name, c in {**costs, "memcpy": memcpy, "run": rest}.items()
    ]
    return Profile(
        core="cortex-a72", variant="neon", model="m",
        cycles=sum(costs.values()) + memcpy + rest, instructions=1, accesses=1, l1_misses=0,
        l2_misses=0, macs=0, macs_per_cycle=0, kernels=tuple(rows),
    )  # fmt: skip


def test_phases_take_what_their_last_thread_takes() -> None:
    whole = profile(COSTS)
    one = team_cost(whole.cycles, whole, PARTS, threads=1)
    assert one.cycles == pytest.approx(whole.cycles)
    assert one.efficiency == pytest.approx(1)
    two = team_cost(whole.cycles, whole, PARTS, threads=2, fork_join=10)
    # Each unit of gemm_a takes 1,000; of depthwise_b, with the rows it copies, 1,200.
    assert two.cycles == pytest.approx(3_000 + 1_200 + 3_000 + 600 + 2 * 10)
    assert (two.serial_cycles, two.fork_joins) == (pytest.approx(600), 2)
    assert team_cost(whole.cycles, whole, PARTS, threads=4, fork_join=0).cycles == pytest.approx(
        2_000 + 4_200 + 600
    )
    assert two.speedup == pytest.approx(whole.cycles / two.cycles)


@given(
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=8), min_size=1, max_size=9),
    st.integers(1, 8),
)
def test_more_threads_are_no_faster_than_all_of_them_busy(
    phases: list[list[int]], threads: int
) -> None:
    rows = [{"layers": ["x"], "calls": [{"kernel": "gemm_a", "parts": [1, *p]}]} for p in phases]
    parts = VariantParts.model_validate({"variant": "neon", "phases": rows})
    whole = profile({"gemm_a": 1000.0})
    found = team_cost(whole.cycles, whole, parts, threads=threads, fork_join=0)
    assert whole.cycles / threads <= found.cycles * (1 + 1e-9)
    assert found.cycles <= whole.cycles * (1 + 1e-9)


def test_a_table_of_another_library_is_refused() -> None:
    whole = profile({"gemm_a": 1.0, "gemm_d": 1.0})
    with pytest.raises(BadInputError, match="depthwise_b"):
        team_cost(whole.cycles, whole, PARTS)


def test_the_table_is_read_from_a_bundle(tmp_path: Path) -> None:
    assert read_parts(tmp_path, "neon") is None
    (tmp_path / FILE).write_text(Parts(variants=(PARTS,)).model_dump_json())
    assert read_parts(tmp_path, "neon") == PARTS
    assert read_parts(tmp_path, "dotprod") is None
    for damage in ("", "{}", '{"variants": [1]}', "[" * 99):
        (tmp_path / FILE).write_text(damage)
        with pytest.raises(BadInputError, match="damaged"):
            read_parts(tmp_path, "neon")
