"""A whole network of candidates on a real board: golden vectors to the bit, time of every kernel.

The network is compiled with a clock before every kernel call, linked and sent to a free board of
the tracker, which is given back after each network.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mfn_compile.arm import oracle
from mfn_compile.arm.firmware.facts import FirmwareFacts
from mfn_compile.arm.firmware.render import render
from mfn_compile.arm.graph import Input, IntegerGraph, Normalize
from mfn_compile.arm.prepared import prepared
from mfn_compile.arm.program import has_quantized_input, make_program
from mfn_compile.arm.schedules import Schedules
from mfn_compile.device.real.address import RpcAddress
from mfn_compile.device.real.answer import Answer as BoardAnswer
from mfn_compile.device.real.answer import parse_answer
from mfn_compile.device.real.measure import CHECK_NUMBERS, LAYERS_NUMBER
from mfn_compile.device.real.programs import (
    GOLDEN,
    LAYERS,
    LayerSource,
    build_shared,
    mark_layers,
    mark_options,
)
from mfn_compile.device.real.session import BoardSession, Job
from mfn_compile.device.real.tracker import count_boards, request_board
from mfn_compile.errors import DeviceError
from mfn_compile.records import Choice
from mfn_compile.target import Variant
from mfn_compile.tune.whole_network import FAILURES, WRONG, Answer, by_key
from mfn_compile.version import __version__

HEADER = "include/mfn.h"
RUNS = 3  # of one answer at most, which share its seconds: candidate, own knobs, candidate
WARM_UP, REPEATS, BUDGET_MS = 3, 25, 5_000
NO_SHA256 = "0" * 64  # the header of a candidate names no checkpoint


@dataclass(frozen=True, eq=False)
class BoardBench:
    """Measures a network on one of the boards that a tracker has under a key.

    Attributes:
        source: the network with the one variant that is tuned.
        graph: read from `source`.
        images: uint8 RGB [N, height, width, 3], which become golden vectors.
        address: of the tracker, with the boards' key.
        command: links shared objects for the boards.
        seconds: of one answer, building and waiting for a free board included.
    """

    source: LayerSource
    graph: IntegerGraph
    images: NDArray[np.uint8]
    address: RpcAddress
    command: tuple[str, ...]
    seconds: float

    @property
    def place(self) -> str:
        """Where it runs, for messages."""
        return str(self.address)

    @property
    def variant(self) -> Variant:
        """What is tuned."""
        return self.source.code.variants[0]

    @cached_property
    def golden(self) -> bytes:
        """The images and the oracle's embeddings, in the form that board.c reads."""
        first = self.graph.nodes[0]
        assert isinstance(first, Input)
        takes = has_quantized_input(self.graph)
        content = bytearray()
        embeddings = oracle.embed(self.graph, self.images)
        for image, embedding in zip(self.images, embeddings, strict=True):
            content += image.tobytes()
            content += oracle.normalize_input(first, image).tobytes() if takes else b""
            content += embedding.astype("<f4").tobytes()
        return bytes(content)

    @cached_property
    def header(self) -> bytes:
        """mfn.h for board.c, which is told the workspace by an option."""
        shape = self.source.preprocessing
        facts = FirmwareFacts(
            model="a candidate",
            checkpoint_sha256=NO_SHA256,
            target="tuning",
            description="",
            version=__version__,
            height=self.graph.height,
            width=self.graph.width,
            embedding_dim=self.graph.embedding,
            workspace_bytes=1,
            parallel_workspace_bytes=1,
            parallel_tasks=1,
            color=shape.color,
            mean=shape.mean,
            std=shape.std,
            normalized=isinstance(self.graph.nodes[-1], Normalize),
            quantized_input=has_quantized_input(self.graph),
            variants=(self.variant.name,),
            shared=False,
        )
        return render(facts)[HEADER]

    def answer(self, given: Mapping[str, Choice]) -> Answer:
        """Build the network with these knobs and run it on a board; times are nanoseconds.

        Kernels without knobs keep the default. Where a board fails, the default knobs run next:
        if these run, the candidates are to blame, a single one after a second try.

        Raises:
            DeviceError: boards or the tracker fail with the default knobs too, or the board
                cannot run the variant; nothing is said of the candidates then.
        """
        try:
            return self._once(given)
        except DeviceError as error:
            if not given:
                raise
            why = str(error)
        except FAILURES as error:
            return Answer({}, {}, _text(error))
        own = self.answer({})
        if own.whole:
            return own
        if len(given) == 1:  # of several, each half is tried again anyway
            try:
                return self._once(given)
            except DeviceError as error:
                why = str(error)
        return Answer({}, {}, why)

    def _once(self, given: Mapping[str, Choice]) -> Answer:
        schedules = Schedules(self.variant.cpu, self.variant.name, None, given)
        limit = self.seconds / RUNS
        count_boards(self.address, limit)  # nobody waits for boards that are gone
        end = time.monotonic() + limit
        # The session comes first: its process loads TVM while the network is built here.
        with tempfile.TemporaryDirectory(prefix="mfn-tune-") as name, BoardSession(end) as session:
            files = self._build(schedules, Path(name))
            session.load()
            board = request_board(self.address, max(end - time.monotonic(), 0.1))
            session.open(board, files)
            checked, timed = self._run(session, str(board))
        for found in (checked, timed):
            if found.wrong is not None:
                return Answer({}, {}, f"{WRONG}, of golden vector {found.wrong} on the board")
        return self._times(schedules, timed)

    def _build(self, schedules: Schedules, folder: Path) -> dict[str, Path]:
        """The files that the board gets, by name."""
        made = mark_layers(self.source, (schedules,))
        header, archive = folder / "mfn.h", folder / "marked.a"
        header.write_bytes(self.header)
        archive.write_bytes(made.archive)
        golden = folder / GOLDEN
        golden.write_bytes(self.golden)
        library = build_shared(self.command, header, archive, folder / LAYERS, mark_options(made))
        return {GOLDEN: golden, LAYERS: library}

    def _run(self, session: BoardSession, board: str) -> tuple[BoardAnswer, BoardAnswer]:
        """What a board says of every golden vector, and of every call's time."""
        name = self.variant.name
        check = Job(f"check-{name}", CHECK_NUMBERS[name], LAYERS)
        checked = parse_answer(session.run(check), board)
        if checked.skipped:
            raise DeviceError(
                f"The board cannot run the variant {name}",
                where=board,
                why="its CPU lacks the dot product instructions",
                hint="Tune a target that has neon alone, such as cortex-a72",
            )
        times = Job("layers", LAYERS_NUMBER, LAYERS, WARM_UP, REPEATS, BUDGET_MS)
        return checked, parse_answer(session.run(times), board)

    def _times(self, schedules: Schedules, timed: BoardAnswer) -> Answer:
        """Medians of the calls, summed by function, as nanoseconds of one call of each kernel."""
        program = make_program(prepared(self.graph), schedules)
        calls = [call.kernel for step in program.steps for call in step.calls]
        rows = np.array(timed.layers_ns, np.float64)
        if rows.ndim != 2 or rows.shape[1] != len(calls):
            raise DeviceError(
                "The board's kernel times do not fit the network",
                where=timed.node or self.place,
                why=f"they are {rows.shape}, for {len(calls)} calls",
                hint="Run again",
            )
        # A clock that is too coarse to see a kernel says 0, which is no time.
        spent: dict[str, float] = defaultdict(float)
        for kernel, median in zip(calls, np.median(rows, axis=0), strict=True):
            spent[kernel] += max(float(median), 1.0)
        return Answer(by_key(program, spent), {}, total=sum(spent.values()))


def _text(error: Exception) -> str:
    return str(error).strip() or type(error).__name__
