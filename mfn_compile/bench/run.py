"""One peer's model on the virtual board: counted under QEMU, judged, costed."""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path

import numpy as np
from pydantic import Field

from mfn_compile.arm.firmware.process import Finished, run_tool
from mfn_compile.bench.converting import Converted, not_yet
from mfn_compile.bench.environments import bench_folder, site_of
from mfn_compile.bench.peers import Peer
from mfn_compile.bench.subject import Subject
from mfn_compile.device.blocks import Block, Counts, join, parse_counts
from mfn_compile.device.board import Core
from mfn_compile.device.costs import Costs, model_of
from mfn_compile.device.emulator import SOURCE as PLUGIN
from mfn_compile.device.emulator import build_plugin, require_emulator
from mfn_compile.device.emulator import folder as board_folder
from mfn_compile.device.profile import block_cycles
from mfn_compile.device.sysroot import core_view, python_command
from mfn_compile.errors import DeviceError
from mfn_compile.files import write_whole
from mfn_compile.frozen import Frozen
from mfn_compile.hashing import file_sha256, value_sha256
from mfn_compile.vectors import cosines

RUNNER = Path(__file__).parent / "runners" / "peer.py"
MOST_OTHERS = 0.02  # share of the time that sleeping threads may take, waking up now and then
RUN_SECONDS = 1800.0  # importing a large package takes QEMU half a minute on a free machine


class Counted(Frozen):
    """The second of two inferences on a core, one thread."""

    cycles: float = Field(ge=0, description="modelled; waiting for memory is not in it")
    instructions: int = Field(ge=0)
    l1_misses: int = Field(ge=0)
    l2_misses: int = Field(ge=0)
    cosine: float = Field(description="to the float network, the mean of the counted crops")


def count(
    peer: Peer, converted: Converted, subject: Subject, core: Core, *, known: bool = False
) -> Counted:
    """Run a peer on the virtual board; what ran before is read from the disk.

    Args:
        peer: which.
        converted: its model.
        subject: the network and its crops.
        core: to run on.
        known: run nothing.

    Raises:
        DeviceError: it did not run before, with `known`; or the root or the wheels are missing, or
            the peer crashed, used several threads or did not end.
    """
    site = site_of(peer)
    machine = core.model_dump(mode="json", include={"qemu", "part", "stepping", "l1", "l2"})
    keys = [subject.key, converted.sha256, peer.site, machine]
    key = value_sha256([*keys, file_sha256(RUNNER), file_sha256(PLUGIN)])
    place = bench_folder() / "counts" / f"{peer.name}-{core.name}-{key[:24]}.json.gz"
    if known and not place.is_file():
        raise not_yet(peer)
    if not place.is_file():
        counts, cosine = _run(site, peer, converted, subject, core)
        write_whole(place, gzip.compress(_text(counts, cosine), 6))
    found, cosine = _read(place)
    return _costed(found, cosine, core)


def _run(
    site: Path, peer: Peer, converted: Converted, subject: Subject, core: Core
) -> tuple[Counts, float]:
    with tempfile.TemporaryDirectory(prefix="mfn-bench-") as folder:
        view = core_view(site.parent.parent, core, Path(folder))
        program, options = python_command(view, peer.name)
        out, blocks = Path(folder, "found.npz"), Path(folder, "blocks.txt")
        caches = f"l1={core.l1.bytes},l1-ways={core.l1.ways},l2={core.l2.bytes}"
        settings = f"{build_plugin()},out={blocks},{caches},l2-ways={core.l2.ways}"
        files = (RUNNER, converted.job, "count", subject.file("counted"), out)
        emulator = (require_emulator(), "-plugin", settings, "-cpu", core.qemu, *options)
        done = run_tool(
            [*emulator, program, *map(str, files)], timeout=RUN_SECONDS, cwd=Path(folder)
        )
        if done.code != 0 or not blocks.is_file():
            raise DeviceError(
                f"{peer.title} failed on the virtual board",
                where=core.name,
                why=_reason(done),
                hint="Leave it out of --peers, or see what it says",
            )
        counts = parse_counts(blocks.read_text(encoding="ascii"))
        with np.load(out) as found:
            embeddings, busy = found["embeddings"], found["busy"]
    _only_one_thread(peer, counts, busy.tolist())
    with np.errstate(invalid="ignore"):
        cosine = float(np.mean(cosines(embeddings, subject.reference()[: len(embeddings)])))
    return counts, cosine if np.isfinite(cosine) else 0.0


def _reason(done: Finished) -> str:
    lines = done.stderr.strip().splitlines()
    if done.code < 0:
        return f"it was ended by signal {-done.code}"
    return lines[-1] if lines else f"it ended with {done.code}"


def _only_one_thread(peer: Peer, counts: Counts, busy: list[int]) -> None:
    """Some engines start threads that then sleep: these may exist, but not have worked."""
    own, others = busy
    if counts.threads > 1 and others > MOST_OTHERS * own:
        raise DeviceError(
            f"{peer.title} worked on several threads, and counts are right for one only",
            why=f"the others took {others / max(own, 1):.0%} of the time of the first",
            hint="Leave it out of --peers",
        )


def _text(counts: Counts, cosine: float) -> bytes:
    blocks = [[b.address, b.count, b.l1, b.l2, b.code.hex()] for b in counts.blocks]
    return json.dumps({"cosine": cosine, "accesses": counts.accesses, "blocks": blocks}).encode()


def _read(place: Path) -> tuple[Counts, float]:
    found = json.loads(gzip.decompress(place.read_bytes()))
    blocks = tuple(Block(a, n, bytes.fromhex(c), l1, l2) for a, n, l1, l2, c in found["blocks"])
    return Counts(blocks, found["accesses"], 1), found["cosine"]


def _costed(counts: Counts, cosine: float, core: Core) -> Counted:
    costs = Costs(model_of(core), board_folder())
    return Counted(
        cycles=sum(block_cycles(join(counts.blocks), costs)),
        instructions=round(sum(block.instructions for block in counts.blocks)),
        l1_misses=sum(block.l1 for block in counts.blocks),
        l2_misses=sum(block.l2 for block in counts.blocks),
        cosine=cosine,
    )
