"""The search over settings: what it may change, what it keeps, and what it must not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from mfn_compile.errors import DeviceError, InternalCheckError, UsageError
from mfn_compile.intel import plan, runtime
from mfn_compile.intel import search as searching
from mfn_compile.intel.backend import OpenVinoBackend
from mfn_compile.intel.embedder import OpenVinoEmbedder
from mfn_compile.intel.execution import precision
from mfn_compile.intel.form import Contest, Form, contest
from mfn_compile.intel.interface import feed, interface_of
from mfn_compile.intel.ir import convert
from mfn_compile.intel.islands import LayerGain, by_gain, layer_seconds
from mfn_compile.intel.noise import noise, ratio
from mfn_compile.intel.plan import Candidate, Plan
from mfn_compile.intel.search import _Search, first_outcome, search
from mfn_compile.knob_result import PIXELS, Ratio
from mfn_compile.model.preprocessing import Preprocessing
from mfn_compile.progress import SilentProgress
from mfn_compile.request import CompileRequest
from mfn_compile.results import CheckpointInfo
from mfn_compile.target import load_target
from tests.arm.qdq_files import runtime_quantized
from tests.intel.test_intel import ONE, SHAPE, onnx_file

__all__ = ["onnx_file"]  # the fixture
TIMES = arrays(np.float64, st.integers(1, 40), elements=st.floats(1e-6, 1.0))


@pytest.fixture(scope="module")
def crops() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (12, 112, 112, 3), np.uint8)


@pytest.fixture(scope="module")
def qdq(
    onnx_file: Path, crops: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("qdq")
    batches = SHAPE.apply(crops)[:, None]
    model = runtime_quantized(
        folder, onnx.load(onnx_file), per_channel=True, unsigned=True, batches=batches
    )
    onnx.save(model, folder / "int8.onnx")
    return folder / "int8.onnx"


@pytest.fixture(scope="module")
def int8(qdq: Path) -> Path:
    return convert(qdq, qdq.with_suffix(".xml"))[0]


@pytest.fixture(scope="module")
def fp32(onnx_file: Path) -> Path:
    return convert(onnx_file, onnx_file.parent / "fp32.xml")[0]


@given(TIMES, st.floats(0.01, 100))
def test_a_ratio_lies_in_its_interval_and_has_no_unit(
    times: NDArray[np.float64], unit: float
) -> None:
    other = times[::-1]
    found = ratio(times, other)
    assert found.low <= found.value * (1 + 1e-12)
    assert found.value <= found.high * (1 + 1e-12)
    again = ratio(unit * times, unit * other)
    assert again.value == pytest.approx(found.value)
    swapped = ratio(other, times)
    assert swapped.value == pytest.approx(1 / found.value)
    assert (swapped.low, swapped.high) == pytest.approx((1 / found.high, 1 / found.low))
    assert noise(found) >= 1
    assert noise(found) == pytest.approx(noise(swapped))


@given(arrays(np.float64, 15, elements=st.floats(0.5, 2.0)), st.integers(0, 14))
def test_one_disturbed_round_stays_within_the_others(
    before: NDArray[np.float64], which: int
) -> None:
    after = np.ones(15)
    after[which] = 1e6
    others = np.delete(before, which)
    found = ratio(before, after)
    assert others.min() * (1 - 1e-9) <= found.low
    assert found.high <= others.max() * (1 + 1e-9)


def test_intervals_hold_the_median_as_often_as_they_say() -> None:
    random = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        found = ratio(np.exp(random.standard_t(2, 15)), np.ones(15))
        held += found.low <= 1 <= found.high
    assert held >= 0.95 * 400


INTERVALS = st.tuples(*[st.floats(0.5, 2.0)] * 3).map(sorted)


@given(INTERVALS, st.floats(0.5, 2), st.floats(1, 1.5), st.booleans(), st.booleans())
def test_only_what_is_faster_beyond_the_noise_and_faithful_is_kept(
    interval: list[float], inference: float, floor: float, faithful: bool, offered: bool
) -> None:
    low, value, high = interval
    found = Contest(Ratio(value=value, low=low, high=high), inference)
    outcome = first_outcome(found, floor, faithful=faithful, offered=offered)
    good = low > floor and faithful and not offered and inference > 1 / floor
    assert (outcome == "kept") == good
    if offered:
        assert outcome == "for information"
    if outcome == "slower":
        assert high < 1


@pytest.mark.parametrize("color", ["RGB", "BGR"])
@pytest.mark.parametrize("interface", ["pixels", "rows"])
def test_another_input_computes_the_same(
    int8: Path, crops: NDArray[np.uint8], tmp_path: Path, color: str, interface: str
) -> None:
    shape = Preprocessing.model_validate(
        {"height": 32, "width": 32, "color": color,
         "mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
    )  # fmt: skip
    written = Plan(ONE, interface=interface).write(int8, shape, tmp_path / "other.xml")
    compiled = runtime.compile_model(written, "CPU", ONE)
    assert interface_of(compiled) == interface
    fed = feed(crops, interface, shape)
    assert fed.shape == (12, 32, 32, 3)
    assert fed.dtype == (np.uint8 if interface == "pixels" else np.float32)
    theirs = OpenVinoEmbedder(written, shape).embed(crops)
    ours = OpenVinoEmbedder(int8, shape).embed(crops)
    # A pixel that falls on the edge between two steps may be rounded to the other one.
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=0.05 * np.abs(ours).max())
    equal = (theirs == ours).all(axis=1)
    assert equal.all() if interface == "rows" else equal.mean() > 0.5


def test_writing_a_plan_twice_gives_the_same_bytes(int8: Path, tmp_path: Path) -> None:
    some = Plan(ONE, "pixels")
    first, second = (some.write(int8, SHAPE, tmp_path / f"{i}.xml") for i in range(2))
    for suffix in (".xml", ".bin"):
        assert first.with_suffix(suffix).read_bytes() == second.with_suffix(suffix).read_bytes()
    assert Plan(ONE).write(int8, SHAPE, tmp_path / "none.xml") == int8


def test_a_layer_in_float32_is_one_and_the_others_stay(int8: Path, tmp_path: Path) -> None:
    seconds = layer_seconds(
        runtime.compile_model(int8, "CPU", {**ONE, "PERF_COUNT": "YES"}),
        np.zeros((1, 3, 32, 32), np.float32),
    )
    assert len(seconds) == 17
    before = precision(runtime.compile_model(int8, "CPU", ONE))
    name = next(iter(seconds))
    written = Plan(ONE, float_layers=(name,)).write(int8, SHAPE, tmp_path / "island.xml")
    after = precision(runtime.compile_model(written, "CPU", ONE))
    assert after.int8_layers == before.int8_layers - 1
    assert len(after.float_layers) == 1
    with pytest.raises(InternalCheckError, match="no_such_layer"):
        Plan(ONE, float_layers=("no_such_layer",)).write(int8, SHAPE, tmp_path / "x.xml")


def test_layers_are_tried_from_the_one_that_loses_most_in_int8() -> None:
    found = by_gain({"a": 2.0, "b": 5.0, "c": 1.0}, {"a": 3.0, "b": 1.0, "d": 1.0})
    assert found == [LayerGain("b", 5.0, 4.0), LayerGain("a", 2.0, -1.0)]


@pytest.mark.parametrize("threads", [1, 2])
def test_candidates_change_something_and_threads_are_only_offered(int8: Path, threads: int) -> None:
    properties = runtime.latency_properties(threads)
    compiled = runtime.compile_model(int8, "CPU", properties)
    layers = [LayerGain("a", 1.0, 0.5), LayerGain("b", 1.0, 0.1), LayerGain("c", 1.0, 0.05)]
    layers += [LayerGain(name, 1.0, -0.2) for name in "defgh"]
    built_in, further = plan.candidates(compiled, "CPU", threads, layers)
    base = Plan(properties)
    assert all(one.applied(base) != base for one in built_in)
    assert [one.float_layers for one in built_in if one.float_layers] == [("a", "b"), ("a",)]
    assert [one.float_layers for one in further] == [(name,) for name in "bcdefgh"]
    assert len({one.name for one in [*built_in, *further]}) == len(built_in) + len(further)
    for one in built_in:
        counts = "INFERENCE_NUM_THREADS" in one.properties
        assert counts == one.offered
        assert one.change()


def test_instances_compute_the_same_bits(int8: Path, crops: NDArray[np.uint8]) -> None:
    form = Form.of(Plan(ONE), int8, "CPU", SHAPE)
    evaluated = OpenVinoEmbedder(int8, SHAPE, properties=ONE).embed(crops)
    np.testing.assert_array_equal(form.embed(crops), evaluated)
    np.testing.assert_array_equal(form.renewed().embed(crops), evaluated)
    found = contest(form, form.renewed(), crops[:1])
    assert 0 < found.pixels.low <= found.pixels.value <= found.pixels.high


def run_search(int8: Path, fp32: Path, crops: NDArray[np.uint8], folder: Path, tune: int | None):
    return search(
        int8, fp32, folder, preprocessing=SHAPE, crops=crops, device="CPU", isa=None,
        threads=1, tune=tune, progress=SilentProgress(),
    )  # fmt: skip


def test_nothing_is_tried_when_the_time_is_up(
    int8: Path,
    fp32: Path,
    crops: NDArray[np.uint8],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(searching, "SECONDS", 0.0)
    found = run_search(int8, fp32, crops, tmp_path, None)
    assert found.plan == Plan(ONE)
    assert found.xml == int8
    assert found.search.trials == ()
    assert found.search.gain is None
    assert "uint8 pixels in, normalized inside" in found.search.untried


def test_what_openvino_refuses_is_recorded_and_not_kept(
    int8: Path, fp32: Path, crops: NDArray[np.uint8], tmp_path: Path
) -> None:
    base = Form.of(Plan(ONE), int8, "CPU", SHAPE)
    run = _Search(base, fp32, tmp_path, crops, None)
    run.attempt(Candidate("nonsense", {"NUM_STREAMS": "many"}))
    run.attempt(Candidate("nothing"))  # changes nothing: there is nothing to measure
    found = run.found([])
    assert [trial.outcome for trial in found.search.trials] == ["refused by OpenVINO"]
    assert found.search.trials[0].ratio is None
    assert found.plan == Plan(ONE)
    with pytest.raises(DeviceError):
        runtime.compile_model(int8, "CPU", {"NUM_STREAMS": "many"})


def test_a_build_ships_and_runs_what_the_search_chose(
    qdq: Path, onnx_file: Path, crops: NDArray[np.uint8], tmp_path: Path
) -> None:
    info = CheckpointInfo(
        name="tiny", sha256="a" * 64, layout="mfn-compile", parameters=1, macs=1,
        embedding_width=16, activations=("PReLU",), preprocessing=SHAPE,
    )  # fmt: skip
    backend = OpenVinoBackend(load_target("intel"), 1, tune=1)
    built = backend.build(
        qdq, onnx_file, tmp_path,
        checkpoint=info, judged=crops, blob=False, progress=SilentProgress(),
    )  # fmt: skip
    assert built.openvino is not None
    assert built.knobs is not None
    assert [trial.name for trial in built.knobs.trials] == ["uint8 pixels in, normalized inside"]
    kept = built.knobs.trials[0].outcome == "kept"
    assert kept == (built.openvino.input == PIXELS) == (built.knobs.gain is not None)
    assert json.loads(built.model_dump_json())["openvino"]["properties"] == ONE
    properties = built.openvino.properties
    compiled = runtime.compile_model(tmp_path / "model_int8.xml", "CPU", properties)
    assert (interface_of(compiled) == "pixels") == kept
    timed = Form.of(Plan(properties), tmp_path / "model_int8.xml", "CPU", SHAPE)
    evaluated = backend.embedder(tmp_path, SHAPE).embed(crops)
    np.testing.assert_array_equal(timed.embed(crops), evaluated)
    times = backend.latency(
        tmp_path, crop=crops[:1], preprocessing=SHAPE, progress=SilentProgress()
    )
    assert times.input == built.openvino.input
    assert built.judge_cosine > 0.98


@settings(max_examples=20)
@given(st.one_of(st.none(), st.integers(0, 50)), st.one_of(st.none(), st.integers(0, 50)))
def test_the_number_of_candidates_decides_which_build_is_known(
    first: int | None, second: int | None
) -> None:
    target = load_target("intel")
    keys = [OpenVinoBackend(target, 1, tune).machine() for tune in (first, second)]
    assert (keys[0] == keys[1]) == (first == second)


def test_fewer_than_no_candidates_are_refused() -> None:
    with pytest.raises(UsageError, match="-1 candidates"):
        CompileRequest(target="intel", tune=-1)
