"""The quantize stage of a run: what its key is made of, and how the quantizer is called."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mfn_compile.errors import UsageError
from mfn_compile.material import Material
from mfn_compile.model.files import checked_sha256
from mfn_compile.progress import Progress
from mfn_compile.recipe import Recipe
from mfn_compile.results import ExportResult, QuantizeResult
from mfn_compile.stages import ADOPT, QUANTIZE, Checkpoint
from mfn_compile.store import Store, Stored
from mfn_compile.target import GridChoice, OverflowFix

if TYPE_CHECKING:
    from mfn_compile.quantize.calibration import CalibrationData


def quantize(
    checkpoint: Checkpoint,
    exported: Stored[ExportResult],
    material: Material,
    recipe: Recipe,
    *,
    overflow_fix: OverflowFix,
    grid: GridChoice,
    qat: bool,
    store: Store,
    progress: Progress,
) -> Stored[QuantizeResult]:
    """The QDQ file of a run, from the store or made now.

    Raises:
        BadInputError: calibration images occur in the evaluation pairs, or a recipe names layers
            that are not there.
        UsageError: there is nothing to fine-tune, or nothing to fine-tune on.
    """
    if qat and not len(material.fine_tuning):
        raise UsageError(
            "--qat has no crops to learn from",
            why=f"Calibration and judging use up all images of {material.source}",
            hint="Give more crops with --calibration, or smaller counts in the recipe",
        )
    inputs = {
        "fp32": exported.result.sha256,
        "recipe": recipe.model_dump(mode="json", exclude=None if qat else {"qat"}),
        "overflow_fix": overflow_fix,
        "grid": grid,
        "calibration": material.calibration.digest(),
        "held_out": material.held_out.digest(),
        "fine_tuning": material.fine_tuning.digest() if qat else None,
        "evaluation": None if material.dataset is None else material.dataset.images.digest,
        "preprocessing": checkpoint.info.preprocessing.model_dump(mode="json"),
    }

    def build(folder: Path) -> QuantizeResult:
        from mfn_compile.quantize.quantizer import QuantizeJob  # noqa: PLC0415 - imports nncf
        from mfn_compile.quantize.quantizer import quantize as run  # noqa: PLC0415

        with progress.task("reading crops", 1) as task:
            calibration = _calibration(material)
            held_out = material.held_out.crops()
            learned_from = material.fine_tuning.crops() if qat else None
            task.advance()
        job = QuantizeJob(
            fp32_onnx=exported.folder / exported.result.file,
            recipe=recipe,
            overflow_fix=overflow_fix,
            grid=grid,
            preprocessing=checkpoint.info.preprocessing,
            calibration=calibration,
            held_out=held_out,
            qat_crops=learned_from,
            module=checkpoint.folded() if qat else None,
        )
        return run(job, folder, progress)

    return store.run(QUANTIZE, inputs, build)


def adopt(
    source: Path,
    checkpoint: Checkpoint,
    exported: Stored[ExportResult],
    material: Material,
    recipe: Recipe,
    *,
    store: Store,
    progress: Progress,
) -> Stored[QuantizeResult]:
    """A user's QDQ file in place of our own, judged as ours would be.

    Raises:
        BadInputError: the file cannot be used, or is another network's.
    """
    inputs = {
        "qdq": checked_sha256(source),
        "fp32": exported.result.sha256,
        "recipe": recipe.model_dump(mode="json"),
        "calibration": material.calibration.digest(),
        "held_out": material.held_out.digest(),
        "evaluation": None if material.dataset is None else material.dataset.images.digest,
        "preprocessing": checkpoint.info.preprocessing.model_dump(mode="json"),
    }

    def build(folder: Path) -> QuantizeResult:
        from mfn_compile.quantize.adopt import adopt as run  # noqa: PLC0415 - imports onnx

        with progress.task("judging the QDQ file", 1) as task:
            found = run(
                source,
                exported.folder / exported.result.file,
                held_out=material.held_out.crops(),
                calibration=_calibration(material),
                preprocessing=checkpoint.info.preprocessing,
                recipe=recipe,
                folder=folder,
            )
            task.advance()
        return found

    return store.run(ADOPT, inputs, build)


def _calibration(material: Material) -> CalibrationData:
    from mfn_compile.quantize.calibration import CalibrationData  # noqa: PLC0415

    pool, dataset = material.calibration, material.dataset
    evaluated, people = frozenset[str](), None
    if dataset is not None:
        used = dataset.pairs.images()
        evaluated = frozenset(dataset.images.content_hashes(used))
        known = dataset.images.identities
        people = None if known is None else frozenset(known[i] for i in used)
    return CalibrationData(
        crops=pool.crops(),
        source=material.source,
        names=tuple(pool.images.names[i] for i in pool.indices),
        hashes=pool.hashes(),
        identities=pool.identities(),
        evaluation_hashes=evaluated,
        evaluation_identities=people,
    )
