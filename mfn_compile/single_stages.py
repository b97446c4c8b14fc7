"""`mfn-compile export` and `mfn-compile quantize`: the first stages alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mfn_compile import environment
from mfn_compile.bundle.guard import check_replaceable
from mfn_compile.bundle.manifest import BundleInfo
from mfn_compile.bundle.writer import write_bundle
from mfn_compile.files import write_whole
from mfn_compile.frozen import Frozen
from mfn_compile.material import gather, rendered_crops
from mfn_compile.progress import Progress
from mfn_compile.quantizing import quantize
from mfn_compile.recipe import load_recipe
from mfn_compile.request import CompileRequest, ModelSource
from mfn_compile.results import CheckpointInfo, ExportResult, QuantizeResult
from mfn_compile.stages import FACE_CROPS, Checkpoint, describe_checkpoint, open_store
from mfn_compile.store import Stored
from mfn_compile.target import load_target
from mfn_compile.version import __version__


@dataclass(frozen=True)
class ExportRequest:
    """What `export` is asked for; without `out` nothing is written."""

    model: ModelSource
    dynamic_batch: bool
    out: Path | None
    cache_dir: Path | None
    no_cache: bool


class Exported(Frozen):
    """What was recognised and exported."""

    checkpoint: CheckpointInfo
    export: ExportResult

    def lines(self) -> str:
        """For the console."""
        info, found = self.checkpoint, self.export
        rows = [
            ("layout", info.layout + (" (demo model on rendered faces)" if info.demo else "")),
            ("input", info.preprocessing.describe()),
            ("parameters", f"{info.parameters:,}"),
            ("multiply-adds", f"{info.macs:,}"),
            ("embedding", f"{info.embedding_width}-d"),
            ("activations", ", ".join(info.activations)),
            ("checkpoint", f"sha256 {info.sha256}"),
            ("ONNX", f"opset {found.opset}, {found.convolutions} convolutions, "
                     f"{'dynamic batch' if found.dynamic_batch else 'batch 1'}, "
                     f"{found.bytes:,} bytes"),
            ("parity", f"max abs difference {found.parity.max_abs_difference:.2e}, relative "
                       f"{found.parity.max_relative_difference:.2e} "
                       f"(limit {found.parity.tolerance:.0e}) on {', '.join(found.parity.inputs)}"),
        ]  # fmt: skip
        return "\n".join(f"{label:<14}{value}" for label, value in rows)


class Quantized(Frozen):
    """What was quantized, and where it lies."""

    checkpoint: CheckpointInfo
    quantization: QuantizeResult
    bundle: str

    def lines(self) -> str:
        """For the console."""
        found = self.quantization
        candidates = ", ".join(
            f"{c.method} {c.held_out_cosine:.5f} (min {c.held_out_min_cosine:.4f})"
            for c in found.candidates
        )
        shared = found.calibration.shared_identities
        rows = [
            ("recipe", f"{found.recipe}, overflow fix {found.overflow_fix}, {found.grid} grid"),
            ("calibrated on", f"{found.calibration.images} images of {found.calibration.source}"
                              + (f", {shared} of people in the pairs" if shared else "")),
            ("chosen", found.method),
            ("held-out cosine", f"{candidates} on {found.held_out_images} images"),
            ("quantized", f"{found.quantized_convolutions} convolutions, "
                          f"{found.per_channel_activations} per-channel activation scales"),
            ("in float", ", ".join(found.float_convolutions) or "none"),
            ("written to", self.bundle),
        ]  # fmt: skip
        return "\n".join(f"{label:<17}{value}" for label, value in rows)


def run_export(request: ExportRequest, progress: Progress) -> Exported:
    """Recognise, export, check.

    Raises:
        BadInputError: the checkpoint cannot be used.
        InternalCheckError: the exported graph computes something else.
        DeviceError: the output cannot be written.
    """
    with open_store(request.cache_dir, request.no_cache, progress) as store:
        checkpoint = Checkpoint(request.model, store, progress)
        stored = checkpoint.export(rendered_crops(FACE_CROPS), request.dynamic_batch)
        found = Exported(checkpoint=checkpoint.info, export=stored.result)
        if request.out is not None:
            content = (stored.folder / stored.result.file).read_bytes()
            write_whole(request.out / stored.result.file, content)
            document = found.model_dump_json(indent=2).encode() + b"\n"
            write_whole(request.out / "export.json", document)
    return found


def run_quantize(request: CompileRequest, progress: Progress) -> Quantized:
    """Export and quantize; the bundle has the networks, recipe and target, but no artifact.

    Raises:
        MfnError: one of its subclasses.
    """
    target, recipe = load_target(request.target), load_recipe(request.recipe)
    with open_store(request.cache_dir, request.no_cache, progress) as store:
        checkpoint = Checkpoint(request.model, store, progress)
        out = request.out or Path("mfn-compile-out") / f"{checkpoint.path.stem}-quantized"
        check_replaceable(out)
        progress.note(describe_checkpoint(checkpoint))
        material = gather(request.data, demo=checkpoint.info.demo, plan=recipe.calibration)
        exported = checkpoint.export(material.calibration, request.dynamic_batch)
        quantized = quantize(
            checkpoint,
            exported,
            material,
            recipe,
            overflow_fix=target.overflow_fix(environment.cpu_flags()),
            grid=target.quantization.grid,
            qat=request.qat,
            store=store,
            progress=progress,
        )
        info = BundleInfo.about(
            target.name, checkpoint.info, exported.result, environment.describe(), __version__
        )
        bundle = write_bundle(
            out,
            {
                "onnx/model_fp32.onnx": _file(exported),
                "onnx/model_int8_qdq.onnx": _file(quantized),
                "recipe.json": recipe.to_json().encode(),
                "target.json": target.to_json().encode(),
                "quantization.json": quantized.result.model_dump_json(indent=2).encode() + b"\n",
            },
            info,
        )
    return Quantized(checkpoint=checkpoint.info, quantization=quantized.result, bundle=str(bundle))


def _file(stored: Stored[ExportResult] | Stored[QuantizeResult]) -> Path:
    return stored.folder / stored.result.file
