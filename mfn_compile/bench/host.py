"""Peers on this machine: judged, weighed and timed beside ours, on one thread each."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from mfn_compile.arm.firmware.process import run_tool
from mfn_compile.bench.converting import Converted, not_yet
from mfn_compile.bench.environments import bench_folder, host_python
from mfn_compile.bench.peers import Peer
from mfn_compile.bench.results import OURS, Native
from mfn_compile.bench.run import RUNNER
from mfn_compile.bench.subject import Subject
from mfn_compile.errors import DeviceError
from mfn_compile.files import write_whole
from mfn_compile.hashing import file_sha256, value_sha256
from mfn_compile.model.preprocessing import Preprocessing
from mfn_compile.progress import Progress
from mfn_compile.vectors import cosines

RUN_SECONDS = 1800.0
ROUNDS, RUNS = 15, 5  # every engine does RUNS inferences in each of ROUNDS rounds


@dataclass(frozen=True)
class PeerOnHost:
    """A peer's model in its environment on this machine; an Embedder of the evaluation."""

    peer: Peer
    converted: Converted
    subject: Subject

    @property
    def key(self) -> str:
        """Content key of model, packages and preprocessing."""
        pins = self.peer.host or self.peer.site
        return value_sha256([self.subject.key, self.converted.sha256, pins])

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """RGB crops uint8 [n, 112, 112, 3] to float32 [n, D].

        Raises:
            DeviceError: the peer failed.
        """
        return self.embed_prepared(self.subject.preprocessing.apply(crops))

    def embed_prepared(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """The network's input float32 [n, 3, H, W] to float32 [n, D]."""
        with tempfile.TemporaryDirectory(prefix="mfn-bench-") as folder:
            source, found = Path(folder, "in.npy"), Path(folder, "out.npy")
            np.save(source, images)
            self._run("embed", str(source), str(found))
            embeddings: NDArray[np.float32] = np.load(found)
        return embeddings

    def facts(self, *, known: bool = False) -> tuple[float, int]:
        """Mean cosine of the probes, and bytes that the process grows by; kept on disk.

        Raises:
            DeviceError: the peer failed.
        """
        key = value_sha256([self.key, file_sha256(RUNNER)])
        place = bench_folder() / "facts" / f"{key[:24]}.json"
        if known and not place.is_file():
            raise not_yet(self.peer)
        if not place.is_file():
            found = self.embed_prepared(np.load(self.subject.file("probes")))
            with np.errstate(invalid="ignore"):
                cosine = float(np.mean(cosines(found, self.subject.reference())))
            grown = int(self._run("memory", str(self.subject.file("counted"))).split()[-1])
            text = json.dumps([cosine if np.isfinite(cosine) else 0.0, grown])
            write_whole(place, text.encode())
        cosine, grown = json.loads(place.read_text(encoding="ascii"))
        return cosine, grown

    def command(self, mode: str, *arguments: str) -> list[str]:
        """How the runner is started."""
        python = host_python(self.peer)
        return [python, str(RUNNER), str(self.converted.job), mode, *arguments]

    def _run(self, mode: str, *arguments: str) -> str:
        done = run_tool(self.command(mode, *arguments), timeout=RUN_SECONDS)
        if done.code != 0:
            raise DeviceError(
                f"{self.peer.title} cannot run its model on this machine",
                where=str(self.converted.job),
                why=(done.stderr.strip().splitlines() or [f"it ended with {done.code}"])[-1],
                hint="Leave it out of --peers",
            )
        return done.stdout


def ours_command(qdq: Path, preprocessing: Preprocessing, image: Path) -> list[str]:
    """How our integer network, compiled for this CPU, is served like a peer."""
    module = "mfn_compile.bench.ours"
    return [sys.executable, "-m", module, str(qdq), preprocessing.model_dump_json(), str(image)]


def time_all(
    workers: Sequence[tuple[str, str, list[str]]], progress: Progress
) -> tuple[Native, ...]:
    """Time engines in turns, so that what else the machine does strikes all alike.

    Args:
        workers: (engine, precision, command) of servers; the first is ours.
        progress: where to report to.

    Raises:
        DeviceError: our own server failed.
    """
    times: dict[int, list[float]] = {index: [] for index in range(len(workers))}
    with ExitStack() as stack, progress.task("Timing on this machine", ROUNDS) as task:
        servers = {}
        for index, (_, _, command) in enumerate(workers):
            server = stack.enter_context(_Server(command))
            if server.answer() == "ready":
                servers[index] = server
        for _ in range(ROUNDS):
            for index, server in servers.items():
                times[index].append(float(server.ask(RUNS)))
            task.advance()
    if not times[0]:
        raise DeviceError("Our own network cannot be timed on this machine", why="it did not start")
    return tuple(
        _native(engine, precision, times[index], times[0])
        for index, (engine, precision, _) in enumerate(workers)
    )


def _native(engine: str, precision: str, seconds: list[float], ours: list[float]) -> Native:
    if not seconds:
        return Native(engine=engine, precision=precision, reason="it did not start")
    ratios = sorted(one / base for one, base in zip(seconds, ours, strict=True))
    quarter = len(ratios) // 4
    return Native(
        engine=engine,
        precision=precision,
        milliseconds=1000 * statistics.median(seconds),
        ratio=1.0 if engine == OURS and precision == "int8" else statistics.median(ratios),
        low=ratios[quarter],
        high=ratios[-1 - quarter],
    )


class _Server:
    """A runner that waits for a number on its standard input."""

    def __init__(self, command: list[str]) -> None:
        self._command = command

    def __enter__(self) -> _Server:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        return self

    def __exit__(self, *error: object) -> None:
        _pipe(self._process.stdin).close()
        _pipe(self._process.stdout).close()
        self._process.kill()
        self._process.wait()

    def ask(self, runs: int) -> str:
        """Seconds of one of so many inferences."""
        pipe = _pipe(self._process.stdin)
        pipe.write(f"{runs}\n")
        pipe.flush()
        return self.answer()

    def answer(self) -> str:
        """The next line that is an answer; engines print banners of their own."""
        for line in _pipe(self._process.stdout):
            text = line.strip()
            if text == "ready" or text.replace(".", "").replace("e-", "").isdigit():
                return text
        return ""


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream
