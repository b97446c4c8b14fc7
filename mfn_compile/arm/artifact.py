"""The firmware folder: library, header, golden vectors, and the proof that they fit together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mfn_compile.arm import oracle
from mfn_compile.arm.agreement import compare
from mfn_compile.arm.embedder import IntegerEmbedder
from mfn_compile.arm.firmware.archive import make_archive
from mfn_compile.arm.firmware.facts import FirmwareFacts
from mfn_compile.arm.firmware.golden import GoldenVector, golden_files
from mfn_compile.arm.firmware.linker import find_compiler, link_shared
from mfn_compile.arm.firmware.parts import FILE as PARTS
from mfn_compile.arm.firmware.proof import (
    NoVariantError,
    ProofRow,
    prove,
    require_prover,
    summary,
)
from mfn_compile.arm.firmware.render import render
from mfn_compile.arm.graph import Input, IntegerGraph, Normalize
from mfn_compile.arm.library import MEMBER, Library, build_library
from mfn_compile.arm.program import has_quantized_input
from mfn_compile.arm.schedules import Schedules
from mfn_compile.errors import DeviceError, InternalCheckError
from mfn_compile.model.preprocessing import CROP_SIZE, Preprocessing
from mfn_compile.progress import Progress
from mfn_compile.results import CheckpointInfo, Firmware, OracleAgreement
from mfn_compile.target import Target
from mfn_compile.vectors import cosines
from mfn_compile.version import __version__

FOLDER = "firmware"
FACES = 3  # golden vectors that are faces; three more are extremes
COMPARED = 8  # crops whose every tensor is compared with ONNX Runtime's
ARCHIVE, SHARED = "lib/libmfn.a", "lib/libmfn.so"


def make_firmware(
    graph: IntegerGraph,
    target: Target,
    checkpoint: CheckpointInfo,
    qdq: Path,
    judged: NDArray[np.uint8],
    ours: IntegerEmbedder,
    folder: Path,
    progress: Progress,
    schedules: Sequence[Schedules] | None = None,
) -> Firmware:
    """Write the firmware files of a network to `folder` and prove them.

    Args:
        qdq: the file that `graph` was read from.
        judged: uint8 RGB crops [N, 112, 112, 3]; some become golden vectors.
        ours: the integer network on this machine, to be checked against the oracle.
        schedules: of the kernels of each variant; those that ship by default.

    Raises:
        BadInputError: a layer has a shape that no kernel takes.
        InternalCheckError: two that must agree to the bit do not.
        DeviceError: the linker or the emulator is there and failed.
    """
    assert target.code is not None
    with progress.task("compiling with TVM", 1) as task:
        library = build_library(graph, target.code, schedules)
        task.advance()
    with progress.task("computing golden vectors", 1) as task:
        vectors = golden_vectors(graph, checkpoint.preprocessing, judged, ours)
        task.advance()
    linker = _write_all(folder, graph, target, checkpoint, library, vectors)
    proofs, unproven = _prove(folder, progress)
    with progress.task("comparing every tensor", 1) as task:
        agreement = _agreement(qdq, judged[:COMPARED], checkpoint.preprocessing)
        task.advance()
    cosine = _openvino_cosines(qdq, folder, checkpoint.preprocessing, judged, ours)
    return Firmware(
        triple=target.code.triple,
        archive_bytes=(folder / ARCHIVE).stat().st_size,
        shared_library=linker,
        variants=library.variants,
        stack=max(row.bytes for row in library.stack),
        plan=library.plan,
        constant=library.constant,
        census=library.census,
        schedules=library.schedules,
        agreement=agreement,
        proofs=summary(proofs),
        unproven=unproven,
        openvino_cosine=float(cosine.mean()),
        openvino_min_cosine=float(cosine.min()),
    )


def _write_all(
    folder: Path,
    graph: IntegerGraph,
    target: Target,
    checkpoint: CheckpointInfo,
    library: Library,
    vectors: Sequence[GoldenVector],
) -> str:
    """Library, golden vectors, and what is rendered around them; returns what `_link` does."""
    assert target.code is not None
    for name, content in {**golden_files(vectors), **_library_files(library)}.items():
        _write(folder / name, content)
    linker = _link(folder, bare_metal=target.code.bare_metal)
    facts = _facts(graph, target, checkpoint, library, shared=bool(linker))
    for name, content in render(facts).items():
        _write(folder / name, content)
    return linker


def golden_vectors(
    graph: IntegerGraph,
    preprocessing: Preprocessing,
    crops: NDArray[np.uint8],
    ours: IntegerEmbedder,
) -> tuple[GoldenVector, ...]:
    """Faces and extremes with the oracle's embeddings.

    Raises:
        InternalCheckError: the network compiled for this machine has other bits than the oracle.
    """
    named = {f"face {i}": crop for i, crop in enumerate(crops[:FACES])} | _extremes()
    whole = np.stack(list(named.values()))
    images = preprocessing.crop(whole)
    embeddings = oracle.embed(graph, images)
    if not np.array_equal(ours.embed(whole).view(np.uint32), embeddings.view(np.uint32)):
        raise InternalCheckError(
            "The integer network compiled for this machine has other bits than its oracle",
            hint="Report it with the command that you ran",
        )
    first = graph.nodes[0]
    assert isinstance(first, Input)
    takes = has_quantized_input(graph)
    return tuple(
        GoldenVector(
            name, image, oracle.normalize_input(first, image) if takes else None, embedding
        )
        for name, image, embedding in zip(named, images, embeddings, strict=True)
    )


def _extremes() -> dict[str, NDArray[np.uint8]]:
    shape = (CROP_SIZE, CROP_SIZE, 3)
    ramp = np.linspace(0, 255, CROP_SIZE).astype(np.uint8)
    return {
        "white": np.full(shape, 255, np.uint8),
        "ramp": np.broadcast_to(ramp[None, :, None], shape).copy(),
        "noise": np.random.default_rng(0).integers(0, 256, shape, np.uint8),
    }


def _library_files(library: Library) -> dict[str, bytes]:
    tasks = library.threads.model_dump_json() + "\n"
    return {ARCHIVE: make_archive({MEMBER: library.content}), PARTS: tasks.encode()}


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _link(folder: Path, *, bare_metal: bool) -> str:
    """Link the shared library; what linked it, empty when there is none."""
    compiler = None if bare_metal else find_compiler()
    if compiler is None:
        return ""
    link_shared(folder / ARCHIVE, folder / SHARED, compiler)
    return compiler.kind


def _facts(
    graph: IntegerGraph,
    target: Target,
    checkpoint: CheckpointInfo,
    library: Library,
    *,
    shared: bool,
) -> FirmwareFacts:
    shape = checkpoint.preprocessing
    return FirmwareFacts(
        model=checkpoint.name,
        checkpoint_sha256=checkpoint.sha256,
        target=target.name,
        description=target.description,
        version=__version__,
        demo=checkpoint.demo,
        height=graph.height,
        width=graph.width,
        embedding_dim=graph.embedding,
        workspace_bytes=library.workspace,
        parallel_workspace_bytes=library.parallel_workspace,
        parallel_tasks=library.parallel_tasks,
        color=shape.color,
        mean=shape.mean,
        std=shape.std,
        normalized=isinstance(graph.nodes[-1], Normalize),
        quantized_input=has_quantized_input(graph),
        variants=tuple(v.name for v in target.code.variants) if target.code else (),
        shared=shared,
        sizes=library.parts,
        stack=library.stack,
    )


def _prove(folder: Path, progress: Progress) -> tuple[tuple[ProofRow, ...], str]:
    """Rows of the proof; or none, and what could not be proven."""
    try:
        require_prover()
    except DeviceError as error:
        return (), f"The library was not run: {error.where}. {error.hint}"
    try:
        return prove(folder, progress), ""
    except NoVariantError as error:
        return (), f"The library was not run: {error.what}. {error.hint}"


def _agreement(
    qdq: Path, crops: NDArray[np.uint8], preprocessing: Preprocessing
) -> OracleAgreement:
    found = compare(qdq, crops, preprocessing)
    return OracleAgreement(
        images=len(crops),
        values=found.values,
        differing=found.end_to_end,
        differing_by_layer=found.by_layer,
        largest=found.largest,
        min_cosine=found.cosine,
    )


def _openvino_cosines(
    qdq: Path,
    folder: Path,
    preprocessing: Preprocessing,
    crops: NDArray[np.uint8],
    ours: IntegerEmbedder,
) -> NDArray[np.float64]:
    """Cosines of the embeddings to OpenVINO's run of the same file on this machine."""
    from mfn_compile.intel.embedder import OpenVinoEmbedder  # noqa: PLC0415 - heavy
    from mfn_compile.intel.ir import convert  # noqa: PLC0415

    xml, _ = convert(qdq, folder.parent / "openvino.xml")
    theirs = OpenVinoEmbedder(xml, preprocessing).embed(crops)
    return cosines(ours.embed(crops), theirs)
