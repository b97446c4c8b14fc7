"""A whole run: inspect, export, quantize, build, time, evaluate, report, bundle."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mfn_compile import environment, gates, on_device
from mfn_compile.backend import Backend, make_backend, make_tuned_backend
from mfn_compile.bundle.guard import check_replaceable
from mfn_compile.bundle.manifest import BundleInfo
from mfn_compile.bundle.writer import write_bundle
from mfn_compile.device.tools import Look, require_all
from mfn_compile.device_result import DeviceResult, Ways
from mfn_compile.errors import UsageError
from mfn_compile.evaluating import stored_evaluation
from mfn_compile.hashing import value_sha256
from mfn_compile.material import Material, gather
from mfn_compile.model.files import checked_sha256
from mfn_compile.progress import Progress, SilentProgress
from mfn_compile.quantizing import adopt, quantize
from mfn_compile.recipe import Recipe, load_recipe
from mfn_compile.report.document import to_json
from mfn_compile.request import CompileRequest
from mfn_compile.results import (
    BackendResult,
    Evaluation,
    ExportResult,
    InputFile,
    Latency,
    QuantizeResult,
    Result,
    Size,
    TargetInfo,
)
from mfn_compile.stages import Checkpoint, describe_checkpoint, open_store
from mfn_compile.store import Stage, Store, Stored
from mfn_compile.target import OverflowFix, Target, load_target
from mfn_compile.tuning import Tuned, TuneRequest, identity, looks_of, tune_target
from mfn_compile.version import __version__
from mfn_compile.ways import Explorer, explore

if TYPE_CHECKING:
    from mfn_compile.device.real.measure import LayerSource

UNTIMED = (
    "No latency is stated: no device was named. --device virtual:NAME models one, "
    "--device rpc://HOST:PORT/KEY measures on a board."
)
JUDGED_CROPS = 128  # crops on which the backend is compared with the outside judge


@dataclass(frozen=True)
class Outcome:
    """What a run leaves: the report's content and the bundle's folder."""

    result: Result
    bundle: Path


def run(request: CompileRequest, progress: Progress | None = None) -> Outcome:
    """Compile a checkpoint for a target, with the evidence.

    A missed budget is no exception: it is in `result.gates`, and the bundle is written.

    Raises:
        MfnError: one of its subclasses, whose exit codes docs/cli.md lists.
    """
    progress = progress or SilentProgress()
    target, recipe = load_target(request.target), load_recipe(request.recipe)
    backend = make_backend(target, request.threads, request.tune)
    device = on_device.choose(request.device, target, request.target)
    if target.code is None and (request.tuned is not None or request.until_ms is not None):
        raise UsageError(
            f"--tuned and --until-ms are for ARM targets, and {target.name!r} is none",
            hint="Leave them out",
        )
    with open_store(request.cache_dir, request.no_cache, progress) as store:
        checkpoint = Checkpoint(request.model, store, progress)
        return _Run(request, target, recipe, backend, device, store, progress, checkpoint).outcome()


def tune(request: CompileRequest, wanted: TuneRequest, progress: Progress | None = None) -> Tuned:
    """Quantize a checkpoint and search the fastest schedules of a target's kernels for it.

    Raises:
        MfnError: one of its subclasses.
    """
    progress = progress or SilentProgress()
    target, recipe = load_target(request.target), load_recipe(request.recipe)
    require_all(looks_of(wanted, target))  # before minutes of work, not after
    backend = make_backend(target, request.threads)
    with open_store(request.cache_dir, request.no_cache, progress) as store:
        checkpoint = Checkpoint(request.model, store, progress)
        progress.note(describe_checkpoint(checkpoint))
        run = _Run(request, target, recipe, backend, None, store, progress, checkpoint)
        return run.tune(wanted, request.out or default_tuned(checkpoint.path, target))


@dataclass(frozen=True, eq=False)
class _Run:
    request: CompileRequest
    target: Target
    recipe: Recipe
    untuned: Backend
    device: on_device.Device | None
    store: Store
    progress: Progress
    checkpoint: Checkpoint

    def outcome(self) -> Outcome:
        out = self.request.out or default_out(self.checkpoint.path, self.target)
        check_replaceable(out)  # before minutes of work, not after
        self.progress.note(describe_checkpoint(self.checkpoint))
        self._require_tools()  # likewise
        self.built  # noqa: B018 - an artifact that cannot be built is told first
        result = self._result(self.latency, self.timed, self.evaluation)
        return Outcome(result, self._bundle(result, out))

    def _require_tools(self) -> None:
        """Look for everything that was asked for, and tell all that is missing in one error."""
        looks: tuple[Look, ...] = ()
        if self.device is not None and self.device.asked:
            looks = on_device.looks_of(self.device)
        if self.target.code is not None and self.request.tune:
            looks += looks_of(self._tuning(self.request.tune), self.target)
        require_all(looks)

    def _tuning(self, trials: int) -> TuneRequest:
        """What --tune asks for: candidates run on the run's own device."""
        return TuneRequest(
            trials,
            until_ms=self.request.until_ms,
            device=None if self.device is None else self.device.text,
            seconds=self.request.device_seconds,
        )

    @cached_property
    def backend(self) -> Backend:
        """The backend with the records of this run, where it has some."""
        folder = self._tuned_folder
        return self.untuned if folder is None else make_tuned_backend(self.target, folder)

    @cached_property
    def _tuned_folder(self) -> Path | None:
        """Records to compile with; None for those that ship."""
        folder, wanted = self.request.tuned, self.request.tune
        if self.target.code is None:
            return None
        if wanted:
            tuning = self._tuning(wanted)
            parts = {
                "network": self.quantized.result.sha256,
                "target": self.target.digest(),
                "device": tuning.device,
                **identity(),
            }
            folder = self.store.root / "tuning" / value_sha256(parts)[:16]
            self.progress.note(self.tune(tuning, folder).lines())
        return folder

    def tune(self, wanted: TuneRequest, folder: Path) -> Tuned:
        """Search for this run's network; records and logs go to `folder`."""
        return tune_target(
            self.qdq_onnx,
            self.checkpoint.info.preprocessing,
            self.target,
            wanted,
            self.material.calibration.crops(1)[0],
            folder,
            self.progress,
        )

    @cached_property
    def material(self) -> Material:
        with self.progress.task("reading images", 1) as task:
            found = gather(
                self.request.data, demo=self.checkpoint.info.demo, plan=self.recipe.calibration
            )
            task.advance()
        for note in found.notes():
            self.progress.note(note)
        return found

    @cached_property
    def overflow_fix(self) -> OverflowFix:
        return self.target.overflow_fix(environment.cpu_flags())

    @cached_property
    def exported(self) -> Stored[ExportResult]:
        return self.checkpoint.export(self.material.calibration, self.request.dynamic_batch)

    @cached_property
    def quantized(self) -> Stored[QuantizeResult]:
        if self.request.qdq is not None:
            return adopt(
                self.request.qdq,
                self.checkpoint,
                self.exported,
                self.material,
                self.recipe,
                store=self.store,
                progress=self.progress,
            )
        return quantize(
            self.checkpoint,
            self.exported,
            self.material,
            self.recipe,
            overflow_fix=self.overflow_fix,
            grid=self.target.quantization.grid,
            qat=self.request.qat,
            store=self.store,
            progress=self.progress,
        )

    @property
    def fp32_onnx(self) -> Path:
        return self.exported.folder / self.exported.result.file

    @property
    def qdq_onnx(self) -> Path:
        return self.quantized.folder / self.quantized.result.file

    @cached_property
    def built(self) -> Stored[BackendResult]:
        stage = Stage(
            f"build-{self.target.backend}", BackendResult, self.backend.code, self.backend.tools
        )
        judged = self.material.held_out
        inputs = {
            "qdq": self.quantized.result.sha256,
            "fp32": self.exported.result.sha256,
            "machine": self.backend.machine(),
            "judged": judged.digest(),
            "blob": self.request.blob,
            "checkpoint": self.checkpoint.info.model_dump(mode="json"),
            "version": __version__,
        }
        return self.store.run(
            stage,
            inputs,
            lambda folder: self.backend.build(
                self.qdq_onnx,
                self.fp32_onnx,
                folder,
                checkpoint=self.checkpoint.info,
                judged=judged.crops(JUDGED_CROPS),
                blob=self.request.blob,
                progress=self.progress,
            ),
        )

    @cached_property
    def latency(self) -> Latency | None:
        if not self.backend.measures_latency:
            return None
        stage = Stage("latency", Latency, self.backend.code, self.backend.tools)
        use = self.built.result.openvino
        inputs = {
            "qdq": self.quantized.result.sha256,
            "fp32": self.exported.result.sha256,
            "machine": self.backend.machine(),
            "use": use.model_dump(mode="json") if use else None,
        }
        return self.store.run(
            stage,
            inputs,
            lambda folder: self.backend.latency(
                self.built.folder,
                crop=self.material.calibration.crops(1),
                preprocessing=self.checkpoint.info.preprocessing,
                progress=self.progress,
            ),
        ).result

    @cached_property
    def unready(self) -> str:
        """Why the target's own device is left out; empty where it is not."""
        return "" if self.device is None else on_device.unready(self.device)

    @cached_property
    def timed(self) -> DeviceResult | None:
        if self.device is None or self.unready:
            return None
        return on_device.time_on(
            self.device,
            self.backend.bundle(self.built.folder),
            self.store,
            self.progress,
            seconds=self.request.device_seconds,
            layers=self._layers(),
        )

    @cached_property
    def ways(self) -> Ways | None:
        """What else would bring the time down, where that can be modelled."""
        if self.timed is None or self.device is None or self.device.virtual is None:
            return None
        assert self.target.code is not None
        return explore(
            Explorer(
                self.qdq_onnx,
                self.checkpoint.info.preprocessing,
                self.target.code,
                self.backend.bundle(self.built.folder),
                self.device.virtual,
                self.timed,
                self._tuned_folder,
            ),
            self.store,
            self.progress,
        )

    def _layers(self) -> LayerSource | None:
        """What the kernels of a board are timed with; a virtual one needs nothing."""
        code = self.target.code
        if code is None or self.device is None or self.device.virtual is not None:
            return None
        from mfn_compile.device.real.measure import LayerSource  # noqa: PLC0415 - only for it

        return LayerSource(self.qdq_onnx, self.checkpoint.info.preprocessing, code)

    @cached_property
    def evaluation(self) -> Evaluation | None:
        dataset = self.material.dataset
        if dataset is None:
            return None
        shape = self.checkpoint.info.preprocessing
        fp32 = self.backend.fp32_embedder(self.built.folder, shape)
        int8 = self.backend.embedder(self.built.folder, shape)
        return stored_evaluation(
            dataset, fp32, int8, self.request.data.all_pairs, self.store, self.progress
        )

    def _result(
        self,
        latency: Latency | None,
        device: DeviceResult | None,
        evaluation: Evaluation | None,
    ) -> Result:
        limit = self.request.max_latency_ms
        budget = self.target.budget.latency_ms if limit is None else limit
        return Result(
            version=__version__,
            target=self.target.name,
            target_details=TargetInfo(
                name=self.target.name,
                description=self.target.description,
                backend=self.target.backend,
                overflow_fix=self.quantized.result.overflow_fix,
                threads=self.request.threads or self.target.runtime.threads,
                latency_budget_ms=self.target.budget.latency_ms,
            ),
            checkpoint=self.checkpoint.info,
            export=self.exported.result,
            quantization=self.quantized.result,
            backend=self.built.result,
            evaluation=evaluation,
            latency=latency,
            size=self._size(),
            device=device,
            ways=self.ways,
            gates=gates.judge(
                evaluation,
                latency,
                device,
                max_drop=self.request.max_drop,
                max_latency_ms=budget,
                strict=self.request.strict,
            ),
            environment=environment.describe(),
            inputs=self._inputs(),
            notes=self._notes(device),
        )

    def _notes(self, device: DeviceResult | None) -> tuple[str, ...]:
        untimed = self.unready
        if not untimed and device is None and not self.backend.measures_latency:
            untimed = UNTIMED
        return (
            *self.material.notes(),
            *self.backend.notes(self.quantized.result.overflow_fix),
            *([untimed] if untimed else []),
            *(() if device is None else device.warnings),
        )

    def _size(self) -> Size:
        built, fp32 = self.built, self.exported.result.bytes
        firmware = built.result.firmware
        if firmware is None:
            files = self.backend.shipped(built.folder, built.result).values()
            return Size(model=sum(path.stat().st_size for path in files), fp32_model=fp32)
        return Size(
            model=firmware.archive_bytes,
            fp32_model=fp32,
            text=max(variant.text for variant in firmware.variants),
            rodata=max(variant.rodata for variant in firmware.variants),
            workspace=firmware.plan.peak,
        )

    def _inputs(self) -> tuple[InputFile, ...]:
        material = self.material
        rows = [
            ("checkpoint", self.checkpoint.path.name, self.checkpoint.sha256),
            ("recipe", self.recipe.name, self.recipe.digest()),
            ("target", self.target.name, self.target.digest()),
            ("calibration images", material.source, material.calibration.digest()),
            ("held-out images", material.source, material.held_out.digest()),
        ]
        if self.request.qdq is not None:
            rows.append(("QDQ network", self.request.qdq.name, checked_sha256(self.request.qdq)))
        if material.dataset is not None:
            rows.append(
                ("evaluation images", material.dataset.name, material.dataset.images.digest)
            )
            rows.append(
                ("evaluation pairs", material.dataset.name, material.dataset.pairs.digest())
            )
        return tuple(InputFile(role=role, name=name, sha256=sha) for role, name, sha in rows)

    def _bundle(self, result: Result, out: Path) -> Path:
        from mfn_compile.report.html import render_html  # noqa: PLC0415 - imports matplotlib

        with self.progress.task("writing the report and the bundle", 1) as task:
            files: dict[str, Path | bytes] = {
                **self.backend.shipped(self.built.folder, self.built.result),
                "onnx/model_fp32.onnx": self.fp32_onnx,
                "onnx/model_int8_qdq.onnx": self.qdq_onnx,
                "recipe.json": self.recipe.to_json().encode(),
                "target.json": self.target.to_json().encode(),
                "report.json": to_json(result).encode(),
                "report.html": render_html(result).encode(),
            }
            bundle = write_bundle(out, files, BundleInfo.of(result))
            task.advance()
        return bundle


def default_tuned(checkpoint: Path, target: Target) -> Path:
    """Where tuning goes when the user names no folder."""
    return Path("mfn-compile-out") / f"tuned-{checkpoint.stem}-{target.name}"


def default_out(checkpoint: Path, target: Target) -> Path:
    """Where a bundle goes when the user names no folder."""
    return Path("mfn-compile-out") / f"{checkpoint.stem}-{target.name}"
