from __future__ import annotations

import pytest

from mfn_compile.device.real.answer import Answer, State
from mfn_compile.device.real.kept import Kept
from mfn_compile.device.real.summary import summarize
from mfn_compile.errors import DeviceError

MS = 1_000_000
STEADY = State(governor="performance", kilohertz=1_800_000, millidegrees=45_000)
PI = Answer(
    machine="aarch64",
    kernel="6.6",
    node="pi",
    implementer="0x41",
    part="0xd08",
    core=3,
    vectors=6,
    right=6,
    before=STEADY,
    after=STEADY,
    times_ns=tuple(range(40 * MS, 50 * MS, MS // 10)),
)
CALLS = {"neon": (("stem", "gemm_1"), ("stem", "gemm_2"))}


def rounds(*answers: Answer, board: str = "a") -> dict[str, Kept]:
    return {f"round-{i}": Kept(board, answer) for i, answer in enumerate(answers)}


def of(found: dict[str, Kept]):  # type: ignore[no-untyped-def]
    return summarize(found, CALLS, ("neon", "dotprod"), warm_up=5, resumed=0)


def warnings(found: dict[str, Kept]) -> str:
    return " ".join(of(found).warnings)


def test_percentiles_title_and_state() -> None:
    found = of(rounds(PI, PI))
    assert (found.title, found.core) == ("Cortex-A72", "cortex-a72")
    assert (found.variant, found.affinity, found.repeats) == ("neon", 3, 200)
    assert found.p50_ms == pytest.approx(44.95)
    assert found.p90_ms == pytest.approx(49.0, abs=0.1)
    assert (found.frequency_mhz, found.temperature_c) == ((1800.0, 1800.0), (45.0, 45.0))
    assert found.governor == "performance"
    assert [text for text in found.warnings if "Kernels were not timed" not in text] == []


def test_the_board_names_itself_where_it_can() -> None:
    model = PI.model_copy(update={"model": "Raspberry Pi 4 Model B Rev 1.4"})
    assert of(rounds(model)).title == "Raspberry Pi 4 Model B Rev 1.4"
    unknown = PI.model_copy(update={"part": "0xfff"})
    assert (of(rounds(unknown)).title, of(rounds(unknown)).core) == ("pi, aarch64", None)


def test_strips_of_a_layer_are_added_up_before_the_median() -> None:
    calls = (("stem", "gemm_1"), ("stem", "gemm_2"), ("stem", "gemm_1"))
    rows = ((1 * MS, 5 * MS, 9 * MS), (8 * MS, 5 * MS, 1 * MS), (2 * MS, 5 * MS, 2 * MS))
    answer = PI.model_copy(update={"times_ns": (), "layers_ns": rows})
    found = summarize(
        {**rounds(PI), "layers": Kept("a", answer)}, {"neon": calls}, ("neon",),
        warm_up=5, resumed=0,
    )  # fmt: skip
    times = [(one.kernel, one.microseconds) for one in found.layers]
    assert times == [("gemm_1", 9_000.0), ("gemm_2", 5_000.0)]


def test_layers_are_medians_with_shares_and_must_add_up() -> None:
    row = (30 * MS, 15 * MS)
    layers = PI.model_copy(update={"times_ns": (), "layers_ns": (row, row, (90 * MS, 90 * MS))})
    found = of({**rounds(PI), "layers": Kept("a", layers)})
    assert [(one.kernel, one.microseconds) for one in found.layers] == [
        ("gemm_1", 30_000.0),
        ("gemm_2", 15_000.0),
    ]
    assert found.layers[0].share == pytest.approx(2 / 3)
    assert found.warnings == ()
    far = layers.model_copy(update={"layers_ns": ((30 * MS, 30 * MS),)})
    assert "+33%" in warnings({**rounds(PI), "layers": Kept("a", far)})
    other = layers.model_copy(update={"layers_ns": ((1, 2, 3),)})
    with pytest.raises(DeviceError, match="3 of 2 calls"):
        of({**rounds(PI), "layers": Kept("a", other)})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"after": State(governor="ondemand")}, "governor was ondemand, performance"),
        ({"after": State(kilohertz=1_750_000)}, "clock moved between 1750 and 1800 MHz"),
        ({"after": State(millidegrees=56_000)}, "temperature went from 45 to 56 C"),
        ({"implementer": ""}, "emulator"),
        ({"times_ns": (60 * MS,)}, "Rounds on one board differed by 33%"),
    ],
)
def test_what_moves_is_a_warning(changes: dict[str, object], says: str) -> None:
    said = warnings(rounds(PI, PI.model_copy(update=changes)))
    assert says in said or says.replace("ondemand, performance", "ondemand") in said


def test_small_moves_are_none() -> None:
    near = State(governor="performance", kilohertz=1_780_000, millidegrees=54_000)
    assert "moved" not in warnings(rounds(PI, PI.model_copy(update={"after": near})))


def test_boards_that_differ_are_a_warning() -> None:
    slow = PI.model_copy(update={"times_ns": (60 * MS,), "node": "other", "model": "Another"})
    found = {**rounds(PI), "round-9": Kept("b", slow)}
    assert "boards differed by 33%" in warnings(found)
    assert "not alike" in warnings(found)
    assert of(found).boards == ("pi (a)", "other (b)")


def test_nothing_exposed_is_nothing_said() -> None:
    bare = PI.model_copy(update={"before": State(), "after": State(), "core": -1})
    found = of(rounds(bare))
    assert (found.governor, found.frequency_mhz, found.temperature_c) == (None, (), ())
    assert found.affinity is None


def test_a_cpu_that_runs_no_variant_is_an_error() -> None:
    with pytest.raises(DeviceError, match="can run no variant"):
        of(rounds(PI.model_copy(update={"times_ns": (), "skipped": True})))


@pytest.mark.parametrize(
    ("able", "variant"),
    [((), "neon"), (("dotprod",), "dotprod"), (("dotprod", "i8mm"), "i8mm")],
)
def test_what_mfn_embed_ran_is_the_best_that_the_cpu_has(
    able: tuple[str, ...], variant: str
) -> None:
    board = PI.model_copy(update=dict.fromkeys(able, True))
    variants = ("neon", "dotprod", "i8mm")
    assert summarize(rounds(board), CALLS, variants, warm_up=5, resumed=0).variant == variant
    assert of(rounds(board)).variant == ("dotprod" if able else "neon")
