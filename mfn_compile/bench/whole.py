"""The whole benchmark: every engine, precision and device; what fails is a row with its reason."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mfn_compile import environment
from mfn_compile.bench.checks import QDQ, check_bundles, check_devices
from mfn_compile.bench.converting import Converted, convert
from mfn_compile.bench.drift import Name, measure
from mfn_compile.bench.environments import bench_folder, host_python, runtime_bytes, site_of
from mfn_compile.bench.host import PeerOnHost, ours_command, time_all
from mfn_compile.bench.peers import Peer, Variant
from mfn_compile.bench.results import GATE, OURS, Bench, Count, Drift, Model, Native
from mfn_compile.bench.run import count
from mfn_compile.bench.subject import Subject, make_subject
from mfn_compile.device.profile import best_variant, profile
from mfn_compile.device.runner import open_bundle
from mfn_compile.device.spec import VirtualDevice
from mfn_compile.errors import MfnError
from mfn_compile.evaluate.embeddings import Embedder
from mfn_compile.material import Material, gather
from mfn_compile.progress import Progress
from mfn_compile.recipe import load_recipe
from mfn_compile.request import DataSource, ModelSource
from mfn_compile.stages import Checkpoint, open_store
from mfn_compile.store import Store
from mfn_compile.vectors import cosines
from mfn_compile.version import __version__


@dataclass(frozen=True)
class BenchRequest:
    """What `bench` is asked for.

    Attributes:
        devices: virtual boards and cores.
        native: also time on this machine.
        bundles: ours, for ARM targets; on every device the one with the fewest cycles counts. None
            leaves our rows out.
        drift: measure what the models do to the evaluation pairs.
        install: make environments that are not there.
        known: run no peer; show what ran before.
        command: as a reader may repeat it.
    """

    model: ModelSource
    data: DataSource
    peers: tuple[Peer, ...]
    devices: tuple[VirtualDevice, ...]
    native: bool
    bundles: tuple[Path, ...]
    drift: bool
    install: bool
    known: bool
    command: str
    cache_dir: Path | None


@dataclass(frozen=True)
class _Made:
    """A peer's model, or why there is none."""

    peer: Peer
    variant: Variant
    converted: Converted | None
    failure: str = ""
    cosine: float | None = None
    memory: int | None = None


def run_bench(request: BenchRequest, progress: Progress) -> Bench:
    """Everything that was asked for; what ran before comes from the disk.

    Raises:
        UsageError: this machine is asked for without a bundle.
        BadInputError: the checkpoint, bundle or images cannot be used.
        DeviceError: QEMU or a tool of our own is missing. A peer that fails is a row, no error.
    """
    check_bundles(request.bundles)
    check_devices(request.devices, request.native, request.bundles, known=request.known)
    with open_store(request.cache_dir, False, progress) as store:
        checkpoint = Checkpoint(request.model, store, progress)
        plan = load_recipe("default").calibration
        material = gather(request.data, demo=checkpoint.info.demo, plan=plan)
        exported = checkpoint.export(material.calibration, dynamic_batch=False)
        subject = make_subject(
            checkpoint.path.stem,
            exported.folder / exported.result.file,
            checkpoint.info.preprocessing,
            material,
        )
        made = _models(request, subject, progress)
        counts = _counts(request, subject, made, progress)
        drifts = _drifts(request, subject, made, material, store, progress)
        native = _native(request, subject, made, progress) if request.native else ()
        ours = _ours(request, subject, material, drifts)
    peers = tuple(_model(one, drifts.get(_name(one)), request) for one in made)
    return Bench(
        network=subject.name,
        crops=material.source,
        command=request.command,
        host=f"{environment.cpu_name()}, {platform.machine()}",
        models=(*ours, *peers),
        counts=counts,
        native=native,
    )


def _name(made: _Made) -> Name:
    return made.peer.name, made.variant.precision


def _models(request: BenchRequest, subject: Subject, progress: Progress) -> list[_Made]:
    wanted = [(peer, variant) for peer in request.peers for variant in peer.variants]
    found = []
    with progress.task("Converting the network for the peers", len(wanted)) as task:
        for peer, variant in wanted:
            one = _make(peer, variant, subject, install=request.install, known=request.known)
            found.append(one)
            task.advance(note=f"{peer.name} {variant.precision}")
    return found


def _make(
    peer: Peer, variant: Variant, subject: Subject, *, install: bool, known: bool = False
) -> _Made:
    try:
        host_python(peer, install=install and not known)
        converted = convert(peer, variant, subject, install=install, known=known)
        cosine, memory = PeerOnHost(peer, converted, subject).facts(known=known)
    except MfnError as error:
        return _Made(peer, variant, None, failure=error.paragraph())
    failure = _gate(cosine) if not variant.half else ""
    return _Made(peer, variant, converted, failure, cosine, memory)


def _gate(cosine: float) -> str:
    if cosine >= GATE:
        return ""
    return f"its embedding is not the network's: cosine {cosine:.3f}, below {GATE}"


def _counts(
    request: BenchRequest, subject: Subject, made: Sequence[_Made], progress: Progress
) -> tuple[Count, ...]:
    rows = []
    with progress.task("Counting on virtual devices", len(request.devices) * len(made)) as task:
        for device in request.devices:
            if request.bundles:
                rows.append(_our_count(request.bundles, device))
            for one in made:
                rows.append(_count(one, subject, device, known=request.known))
                task.advance(note=f"{one.peer.name} {one.variant.precision} {device.name}")
    return tuple(rows)


def _our_count(bundles: Sequence[Path], device: VirtualDevice) -> Count:
    core = device.core
    chosen = {bundle: best_variant(bundle, core) for bundle in bundles}
    fitting = [bundle for bundle, variant in chosen.items() if open_bundle(bundle).has(variant)]
    if not fitting:
        reason = f"no bundle has code for {core.name}"
        return Count(engine=OURS, precision="int8", device=device.name, reason=reason)
    profiles = (profile(bundle, core, chosen[bundle]) for bundle in fitting)
    found = min(profiles, key=lambda one: one.cycles)
    return Count(
        engine=OURS,
        precision="int8",
        device=device.name,
        cycles=found.cycles,
        instructions=found.instructions,
        l1_misses=found.l1_misses,
        l2_misses=found.l2_misses,
        milliseconds=device.milliseconds(found.cycles),
    )


def _count(one: _Made, subject: Subject, device: VirtualDevice, *, known: bool = False) -> Count:
    engine, precision = _name(one)
    reason = one.failure
    if one.variant.half and device.core.macs.dotprod is None:
        reason = "the core has no half precision arithmetic"
    if reason or one.converted is None:
        return Count(engine=engine, precision=precision, device=device.name, reason=reason)
    try:
        found = count(one.peer, one.converted, subject, device.core, known=known)
    except MfnError as error:
        reason = error.paragraph()
        return Count(engine=engine, precision=precision, device=device.name, reason=reason)
    # One crop may lie below the mean of an INT8 model that passed on sixteen of them.
    floor = GATE if one.variant.half or one.variant.precision == "f32" else _loosened(one)
    if found.cosine < floor:
        reason = f"its embedding is wrong on this core: cosine {found.cosine:.3f}"
        return Count(engine=engine, precision=precision, device=device.name, reason=reason)
    return Count(
        engine=engine,
        precision=precision,
        device=device.name,
        cycles=found.cycles,
        instructions=found.instructions,
        l1_misses=found.l1_misses,
        l2_misses=found.l2_misses,
        milliseconds=device.milliseconds(found.cycles),
        cosine=found.cosine,
    )


def _loosened(one: _Made) -> float:
    assert one.cosine is not None
    return one.cosine - (1 - one.cosine) - (1 - GATE)


def _drifts(
    request: BenchRequest,
    subject: Subject,
    made: Sequence[_Made],
    material: Material,
    store: Store,
    progress: Progress,
) -> dict[Name, Drift]:
    if not request.drift or material.dataset is None:
        return {}
    from mfn_compile.evaluate.onnx_embedder import OnnxRuntimeEmbedder  # noqa: PLC0415

    fp32 = OnnxRuntimeEmbedder(subject.onnx, subject.preprocessing, optimize=True)
    embedders: dict[Name, Embedder] = {}
    if request.bundles:
        embedders[OURS, "int8"] = _integers(request.bundles[0], subject)
    for one in made:
        # Half precision runs on ARM only: this machine would compute it in single precision.
        if one.converted is not None and not one.variant.half and not one.failure:
            embedders[_name(one)] = PeerOnHost(one.peer, one.converted, subject)
    return measure(material.dataset, fp32, embedders, store, progress)


def _integers(bundle: Path, subject: Subject) -> Embedder:
    from mfn_compile.arm.embedder import IntegerEmbedder  # noqa: PLC0415 - imports TVM

    return IntegerEmbedder(bundle / QDQ, subject.preprocessing)


def _native(
    request: BenchRequest, subject: Subject, made: Sequence[_Made], progress: Progress
) -> tuple[Native, ...]:
    if not request.bundles:
        return ()
    image = str(subject.file("counted"))
    pixels = subject.file("pixels")
    qdq = request.bundles[0] / QDQ
    workers = [(OURS, "int8", ours_command(qdq, subject.preprocessing, pixels))]
    workers += [_openvino_of_ours(qdq, subject, image)]
    skipped = []
    for one in made:
        engine, precision = _name(one)
        if one.converted is None or one.failure or one.variant.half:
            reason = one.failure or "half precision would run in single precision on this machine"
            skipped.append(Native(engine=engine, precision=precision, reason=reason))
        else:
            server = PeerOnHost(one.peer, one.converted, subject).command("serve", image)
            workers.append((engine, precision, server))
    return (*time_all(workers, progress), *skipped)


def _openvino_of_ours(qdq: Path, subject: Subject, image: str) -> tuple[str, str, list[str]]:
    """Our INT8 network in OpenVINO, which is what the Intel targets ship."""
    from mfn_compile.bench.peers import find_peers  # noqa: PLC0415
    from mfn_compile.hashing import file_sha256  # noqa: PLC0415
    from mfn_compile.intel.ir import convert as to_ir  # noqa: PLC0415 - imports OpenVINO

    place = bench_folder() / "ours" / file_sha256(qdq)[:24]
    place.mkdir(parents=True, exist_ok=True)
    xml = to_ir(qdq, place / "model.xml")[0]
    job = {"engine": "openvino", "precision": "int8", "files": [str(xml)]}
    (place / "job.json").write_text(json.dumps(job), encoding="utf-8")
    converted = Converted(place / "job.json", "", 0, "")
    peer = find_peers(["openvino"])[0]
    server = PeerOnHost(peer, converted, subject).command("serve", image)
    return OURS, "int8 in OpenVINO", server


def _ours(
    request: BenchRequest, subject: Subject, material: Material, drifts: dict[Name, Drift]
) -> tuple[Model, ...]:
    if not request.bundles:
        return ()
    found = _integers(request.bundles[0], subject).embed(material.held_out.crops(16))
    report = request.bundles[0] / "report.json"
    size = json.loads(report.read_text(encoding="utf-8"))["size"] if report.is_file() else {}
    code = size.get("text", 0) + size.get("rodata", 0) or None
    return (
        Model(
            engine=OURS,
            precision="int8",
            version=__version__,
            quantizer="the bundle's recipe",
            model_bytes=size.get("rodata"),
            runtime_bytes=size.get("text"),
            memory_bytes=None if code is None else code + size.get("workspace", 0),
            cosine=float(np.mean(cosines(found, subject.reference()))),
            lfw=drifts.get((OURS, "int8")),
        ),
    )


def _model(one: _Made, drift: Drift | None, request: BenchRequest) -> Model:
    runtime = None
    if request.devices:
        try:
            runtime = runtime_bytes(one.peer, site_of(one.peer))
        except MfnError:
            runtime = None  # every row on a virtual device says so
    return Model(
        engine=one.peer.name,
        precision=one.variant.precision,
        version=one.peer.site[0].partition("==")[2],
        quantizer="" if one.converted is None else one.converted.quantizer,
        model_bytes=None if one.converted is None else one.converted.bytes,
        runtime_bytes=runtime,
        memory_bytes=one.memory,
        cosine=None if one.variant.half else one.cosine,
        lfw=drift,
        failure=one.failure,
    )
