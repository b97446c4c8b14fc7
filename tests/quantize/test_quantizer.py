"""The quantize stage on a tiny network: what the recipe says is what the file holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from mfn_compile.errors import BadInputError, InternalCheckError, UsageError
from mfn_compile.progress import SilentProgress
from mfn_compile.quantize.calibration import CalibrationData, crop_hashes
from mfn_compile.quantize.equalize import equalize
from mfn_compile.quantize.graph import Graph
from mfn_compile.quantize.onnxruntime_session import Judge
from mfn_compile.quantize.qdq import check_sound, summarize
from mfn_compile.quantize.quantizer import QuantizeJob, quantize
from mfn_compile.recipe import CalibrationPlan, Ptq, Qat, Recipe
from mfn_compile.results import QuantizeResult
from tests.quantize.conftest import Exported
from tests.quantize.reference import differences

QUIET = SilentProgress()
SHORT = Qat(steps=6, batch_size=4, warmup=1, eval_every=2, checkpoint_every=2, threads=1)


def recipe(qat: Qat = SHORT, **ptq: object) -> Recipe:
    return Recipe(
        name="t", description="", calibration=CalibrationPlan(images=24, held_out=16),
        ptq=Ptq.model_validate(ptq), qat=qat,
    )  # fmt: skip


def job(exported: Exported, **ptq: object) -> QuantizeJob:
    return QuantizeJob(
        fp32_onnx=exported.path, recipe=recipe(**ptq), overflow_fix="disable", grid="free",
        preprocessing=exported.preprocessing,
        calibration=CalibrationData(exported.crops[:24], "tests"),
        held_out=exported.crops[24:40],
    )  # fmt: skip


def run(task: QuantizeJob, folder: Path) -> tuple[QuantizeResult, onnx.ModelProto]:
    folder.mkdir(exist_ok=True)
    found = quantize(task, folder, QUIET)
    return found, onnx.load(folder / found.file)


def test_everything_is_quantized_and_judged(exported: Exported, tmp_path: Path) -> None:
    found, model = run(job(exported), tmp_path)
    check_sound(summarize(model))
    assert found.quantized_convolutions == 17
    assert found.float_convolutions == ()
    assert found.method == "ptq"
    assert found.per_channel_activations > 0
    assert found.calibration.images == 24
    assert 0.9 < found.candidates[0].held_out_cosine <= 1.0
    assert len(found.layers) == 17
    assert all(layer.precision == "int8" and layer.sqnr_db > 3 for layer in found.layers)


def test_the_same_job_gives_the_same_bytes(exported: Exported, tmp_path: Path) -> None:
    first, _ = run(job(exported), tmp_path / "a")
    second, _ = run(job(exported), tmp_path / "b")
    assert first == second


def test_what_a_killed_run_left_is_used(exported: Exported, tmp_path: Path) -> None:
    first, _ = run(job(exported), tmp_path)
    (tmp_path / first.file).unlink()
    again, _ = run(job(exported), tmp_path)
    assert again == first


def test_float_layers_are_float(exported: Exported, tmp_path: Path) -> None:
    found, _ = run(job(exported, float_layers=("stem.conv", r"blocks\.1\..*")), tmp_path)
    assert found.quantized_convolutions == 13
    assert len(found.float_convolutions) == 4
    assert sum(layer.precision == "float" for layer in found.layers) == 4


def test_an_unknown_float_layer_names_the_nearest(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"stem\.conv"):
        run(job(exported, float_layers=("stem.cnv",)), tmp_path)


def test_per_channel_scales_can_be_left_out(exported: Exported, tmp_path: Path) -> None:
    found, _ = run(job(exported, per_channel_depthwise_activations=False), tmp_path)
    assert found.per_channel_activations == 0


def scales(model: onnx.ModelProto) -> list[float]:
    return [float(q.scale.max()) for q in summarize(model).quantizers if not q.weights]


def test_range_estimators_choose_different_ranges(exported: Exported, tmp_path: Path) -> None:
    kinds = ("min_max", "mean", "percentile", "mse")
    found = {
        kind: scales(run(job(exported, activation_range=kind, percentile=99.0), tmp_path / kind)[1])
        for kind in kinds
    }
    assert len({tuple(value) for value in found.values()}) == len(kinds)
    assert np.mean(found["percentile"]) < np.mean(found["min_max"])
    assert np.mean(found["mse"]) < np.mean(found["min_max"])


def test_the_mixed_preset_has_zero_points(exported: Exported, tmp_path: Path) -> None:
    _, symmetric = run(job(exported), tmp_path / "s")
    _, mixed = run(job(exported, preset="mixed", activation_range="mse"), tmp_path / "m")

    def zero_points(model: onnx.ModelProto) -> set[int]:
        return {int(z) for q in summarize(model).quantizers for z in np.ravel(q.zero_point)}

    assert zero_points(symmetric) == {0}
    assert len(zero_points(mixed)) > 1


def test_bias_correction_changes_biases(exported: Exported, tmp_path: Path) -> None:
    _, with_it = run(job(exported), tmp_path / "with")
    _, without = run(job(exported, bias_correction="none"), tmp_path / "without")
    assert with_it.SerializeToString() != without.SerializeToString()


def test_overflow_fix_halves_the_weights(exported: Exported, tmp_path: Path) -> None:
    def largest(fix: str) -> int:
        task = replace(job(exported), overflow_fix=fix)
        graph = Graph(run(task, tmp_path / fix)[1])
        dense = [n for n in graph.layers() if graph.array(graph.weight(n) or "").shape[1] > 1]
        return max(int(np.abs(graph.array(graph.weight(n) or "").astype(int)).max()) for n in dense)

    assert largest("disable") == 127
    assert largest("enable") <= 64


def test_the_exact_grid_is_what_the_target_demands(exported: Exported, tmp_path: Path) -> None:
    free, ordinary = run(job(exported), tmp_path / "free")
    task = replace(job(exported), grid="exact")
    found, model = run(task, tmp_path / "exact")
    again, _ = run(task, tmp_path / "again")
    assert (free.grid, found.grid) == ("free", "exact")
    assert again == found
    images = exported.images(8)
    assert differences(model, images) == 0
    assert differences(ordinary, images) > 0
    assert found.candidates[0].held_out_cosine > free.candidates[0].held_out_cosine - 0.005
    for before, after in zip(free.layers, found.layers, strict=True):
        assert after.sqnr_db > before.sqnr_db - 3  # the float reference has the gauge too


def test_uncorrected_biases_stay_uncorrected(exported: Exported, tmp_path: Path) -> None:
    task = job(exported, bias_correction="none")
    free, _ = run(task, tmp_path / "free")
    found, _ = run(replace(task, grid="exact"), tmp_path / "exact")
    gain = found.candidates[0].held_out_cosine - free.candidates[0].held_out_cosine
    assert abs(gain) < 0.005


def test_equalization_keeps_the_float_function(exported: Exported) -> None:
    images = exported.images(16)
    equalized, spaces = equalize(exported.model, images, 1.0)
    assert spaces > 0
    before = Judge(exported.path, optimized=True).embed(images)
    after = Judge(equalized.SerializeToString(), optimized=True).embed(images)
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-4 * np.abs(before).max())


def test_calibration_on_evaluation_images_is_refused(exported: Exported, tmp_path: Path) -> None:
    task = job(exported)
    evaluated = frozenset(crop_hashes(exported.crops[20:30]))
    data = replace(
        task.calibration, evaluation_hashes=evaluated, names=tuple("abcdefghijklmnopqrstuvwx")
    )
    with pytest.raises(BadInputError, match="4 of 24 calibration images") as caught:
        run(replace(task, calibration=data), tmp_path)
    assert "u, v, w and 1 more" in str(caught.value)


def test_shared_identities_are_counted(exported: Exported, tmp_path: Path) -> None:
    task = job(exported)
    people = tuple(str(i % 6) for i in range(24))
    data = replace(
        task.calibration, identities=people, evaluation_identities=frozenset({"0", "5", "9"})
    )
    found, _ = run(replace(task, calibration=data), tmp_path)
    assert found.calibration.shared_identities == 8


def test_crops_never_do_two_jobs(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="both the calibration and the held-out"):
        run(replace(job(exported), held_out=exported.crops[23:30]), tmp_path)


def test_crops_of_another_shape_are_refused(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="Aligned crops are"):
        run(replace(job(exported), held_out=exported.crops[24:30, :96]), tmp_path)


def tuning(exported: Exported, settings: Qat = SHORT) -> QuantizeJob:
    return replace(
        job(exported), recipe=recipe(settings), module=exported.module,
        qat_crops=exported.crops[40:],
    )  # fmt: skip


def test_fine_tuning_helps_and_is_reported(exported: Exported, tmp_path: Path) -> None:
    settings = SHORT.model_copy(update={"steps": 40, "batch_size": 12, "learning_rate": 3e-3})
    found, model = run(tuning(exported, settings), tmp_path)
    check_sound(summarize(model))
    ptq, qat = found.candidates
    assert (ptq.method, qat.method) == ("ptq", "qat")
    assert qat.held_out_cosine > ptq.held_out_cosine
    assert found.method == "qat"
    assert found.qat is not None
    assert [step.step for step in found.qat.history][-1] == 40
    assert found.quantized_convolutions == 17


def test_fine_tuning_goes_on_the_exact_grid(exported: Exported, tmp_path: Path) -> None:
    settings = SHORT.model_copy(update={"steps": 40, "batch_size": 12, "learning_rate": 3e-3})
    free, _ = run(tuning(exported, settings), tmp_path / "free")
    task = replace(tuning(exported, settings), grid="exact")
    found, model = run(task, tmp_path / "exact")
    assert found.grid == "exact"
    assert differences(model, exported.images(8)) == 0
    for before, after in zip(free.candidates, found.candidates, strict=True):
        assert after.held_out_cosine > before.held_out_cosine - 0.005
    ruinous = settings.model_copy(update={"learning_rate": 1.0, "steps": 3})
    worse, _ = run(replace(tuning(exported, ruinous), grid="exact"), tmp_path / "ruinous")
    assert worse.method == "ptq"


def test_the_better_candidate_wins(exported: Exported, tmp_path: Path) -> None:
    ruinous = SHORT.model_copy(update={"learning_rate": 1.0, "steps": 3})
    found, _ = run(tuning(exported, ruinous), tmp_path)
    assert found.method == "ptq"
    assert len(found.candidates) == 2


def test_a_killed_fine_tuning_resumes_to_the_same_network(
    exported: Exported, tmp_path: Path
) -> None:
    whole, _ = run(tuning(exported), tmp_path / "whole")

    class Killer(SilentProgress):
        def task(self, title: str, total: int | None = None):  # type: ignore[no-untyped-def]
            context = super().task(title, total)
            if title != "fine-tuning":
                return context
            return Dying(context)

    class Dying:
        def __init__(self, inner) -> None:  # type: ignore[no-untyped-def]
            self.inner, self.left = inner, 5

        def __enter__(self) -> Dying:
            self.inner.__enter__()
            return self

        def __exit__(self, *error: object) -> None:
            self.inner.__exit__(*error)

        def advance(self, steps: int = 1, note: str = "") -> None:
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

    (tmp_path / "killed").mkdir()
    with pytest.raises(KeyboardInterrupt):
        quantize(tuning(exported), tmp_path / "killed", Killer())
    assert (tmp_path / "killed" / "qat_state.pt").exists()
    resumed, _ = run(tuning(exported), tmp_path / "killed")
    assert resumed == whole


def test_fine_tuning_needs_a_torch_network(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--qat needs a checkpoint with weights"):
        run(replace(tuning(exported), module=None), tmp_path)


def test_a_loss_that_is_not_finite_is_an_error(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from mfn_compile.quantize import qat

    nan = torch.tensor(float("nan"))
    monkeypatch.setattr(qat, "distillation_loss", lambda *_: nan)
    with pytest.raises(InternalCheckError, match="not finite"):
        run(tuning(exported), tmp_path)
