"""Schedules of kernels, ways to be faster, and the sentence about the budget."""

from __future__ import annotations

import pytest

from mfn_compile.device_result import Milliseconds, Way, WayKind, Ways
from mfn_compile.report import explained
from mfn_compile.report.html import render_html
from mfn_compile.report.summary import summary_text
from mfn_compile.results import Gate, Gates, Result
from mfn_compile.schedule_result import KernelSchedule
from tests.report import sample


def way(kind: WayKind, text: str, value: float, spread: float = 1.2) -> Way:
    time = Milliseconds(value=value, low=value / spread, high=value * spread)
    return Way(
        kind=kind,
        text=text,
        device="Raspberry Pi 4, Cortex-A72 1.8 GHz",
        cycles=value * 1e6,
        milliseconds=time,
        asks=f"what {kind} asks",
    )


FIRST = way("as it is", "112x112, 1 thread", 33.0)
TEAM = way("threads", "112x112, 2 threads", 17.2)
SMALL = way("input", "96x96, 1 thread", 24.0)
OTHER = way("core", "112x112, 1 thread", 5.0)


def on_device(*ways: Way, limit: float = 18.0) -> Result:
    gate = Gate(passed=False, limit=limit, value=33.0, text="one image takes long")
    update = {"ways": Ways(ways=ways), "gates": Gates(drop=None, latency=gate)}
    return sample.on_board().model_copy(update=update)


def test_the_cheapest_way_is_the_first_that_is_likely() -> None:
    ways = Ways(ways=(FIRST, TEAM, SMALL, OTHER))
    assert ways.cheapest(18.0) == OTHER  # two threads are uncertain
    assert ways.cheapest(21.0) == TEAM
    assert ways.cheapest(40.0) == FIRST
    assert Ways(ways=(FIRST, TEAM, SMALL)).cheapest(18.0) == TEAM
    assert Ways(ways=(FIRST, SMALL)).cheapest(18.0) is None


@pytest.mark.parametrize(
    ("ways", "limit", "says"),
    [
        ((FIRST, TEAM, OTHER), 18.0, "Cheapest way there: 112x112, 1 thread on Raspberry"),
        ((FIRST, TEAM), 18.0, "112x112, 2 threads on Raspberry Pi 4"),
        ((FIRST, SMALL), 18.0, "Nothing that was modelled here gets there"),
        ((FIRST, TEAM), 40.0, "40 ms on one thread of Raspberry Pi 4, Cortex-A72 1.8 GHz: likely."),
    ],
)
def test_the_sentence(ways: tuple[Way, ...], limit: float, says: str) -> None:
    found = explained.budget_sentence(on_device(*ways, limit=limit))
    assert says in found
    assert f"{limit:g} ms on one thread" in found


def test_pages_show_ways_and_the_console_the_cheapest() -> None:
    result = on_device(FIRST, TEAM, SMALL)
    page = render_html(result)
    assert "Ways to be faster" in page
    assert "what input asks" in page
    assert "2 threads" in summary_text(result)
    assert "Ways to be faster" not in render_html(sample.on_board())
    assert explained.budget_sentence(sample.on_board()) == ""


def test_schedules_say_knobs_gain_and_source() -> None:
    tuned = KernelSchedule(
        kernel="gemm_784x128x64_i8",
        variant="neon",
        layers=4,
        knobs={"loads": "general", "late": True, "gap": 3},
        source="tuned",
        tuned_for="gemm_784x128x64_i8",
        cycles=1500.0,
        first_cycles=3000.0,
    )
    near = tuned.model_copy(
        update={"source": "nearest", "cycles": None, "first_cycles": None, "tuned_for": "other"}
    )
    measured = tuned.model_copy(update={"unit": "ns"})
    assert tuned.gain == 2.0
    assert near.gain is None
    rows = [explained._schedule(each, None) for each in (tuned, near, measured)]
    assert rows[0][3:8] == ("loads general, late yes, gap 3", "tuned", "3.0 k cycles",
                            "1.5 k cycles", "2.00x")  # fmt: skip
    assert rows[1][4] == "nearest tuned: other"
    assert rows[2][5] == "3.0 µs"
