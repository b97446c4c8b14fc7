"""Trackers and board servers of the tests."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mfn_compile.device.real.address import RpcAddress
from mfn_compile.device.real.tracker import count_boards
from mfn_compile.device.sysroot import PYTHON, find_sysroot, site_folder
from mfn_compile.errors import DeviceError
from mfn_compile.progress import SilentProgress, SilentTask
from tests.arm.firmware import stub

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "tools/board_server.py"
SERVE = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("board_server", sys.argv[1])
board = importlib.util.module_from_spec(spec)
spec.loader.exec_module(board)
first = int(sys.argv[4])
board.serve(("127.0.0.1", int(sys.argv[2])), sys.argv[3], None, range(first, first + 50))
"""
PATIENCE = 90.0  # an emulated Python takes long to start


def board_server() -> Any:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("board_server", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def tracker() -> Iterator[int]:
    """The script's tracker; its port."""
    with board_server().Tracker(("127.0.0.1", 0)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@dataclass
class Boards:
    """Server processes that register with one tracker, ended with the test."""

    port: int
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def address(self, key: str) -> RpcAddress:
        """Where boards of that key are asked for."""
        return RpcAddress("127.0.0.1", self.port, key)

    def start(
        self,
        key: str,
        python: str = sys.executable,
        env: Mapping[str, str] | None = None,
        before: Callable[[], None] | None = None,
        count: int = 1,
    ) -> subprocess.Popen[bytes]:
        """One more server; waits until `count` are registered."""
        process = subprocess.Popen(
            [python, "-c", SERVE, str(SCRIPT), str(self.port), key, str(free_port())],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
            preexec_fn=before,
            start_new_session=True,
        )
        self.running.append(process)
        self.wait(key, count)
        return process

    def wait(self, key: str, count: int) -> None:
        """Until so many boards have the key."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                if count_boards(self.address(key), 5) >= count:
                    return
            except DeviceError:
                assert all(one.poll() is None for one in self.running), "the server ended"
            time.sleep(0.1)
        raise AssertionError("the server did not register")

    def send(self, process: subprocess.Popen[bytes], number: int) -> None:
        """A signal to a server and all that it started."""
        os.killpg(process.pid, number)

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """End a server, if it still runs, and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            self.send(process, signal.SIGKILL)
        process.wait()
        self.running.remove(process)

    def stop(self) -> None:
        """End all."""
        for process in list(self.running):
            self.end(process)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Watching(SilentProgress):
    """Keeps notes, and calls somebody when jobs are done."""

    def __init__(self, on_job: Callable[[str], None] = lambda note: None) -> None:
        self.notes: list[str] = []
        self._on_job = on_job

    @contextmanager
    def task(self, title: str, total: int | None = None) -> Iterator[SilentTask]:
        """A task that tells of its steps."""
        watching = self

        class Told(SilentTask):
            def advance(self, steps: int = 1, note: str = "") -> None:
                watching._on_job(note)

        yield Told()

    def note(self, text: str) -> None:
        """Keep it."""
        self.notes.append(text)


def emulated_python(folder: Path, cpu: str) -> tuple[str, dict[str, str]]:
    """A program in `folder` that is an AArch64 Python with the wheels, and its environment.

    Skips where the AArch64 root lacks something.
    """
    root = find_sysroot()
    if root is None:
        pytest.skip("there is no AArch64 root folder (MFN_SYSROOT, tools/setup_virtual_board.sh)")
    site = site_folder(root, "tvm")
    if not site.is_dir():
        pytest.skip(f"the AArch64 root lacks {site}")
    wrapper = folder / "python3"
    emulator = stub.tool("qemu-aarch64")
    wrapper.write_text(f'#!/bin/sh\nexec {emulator} -L {root} -cpu {cpu} {root / PYTHON} "$@"\n')
    wrapper.chmod(0o755)
    return str(wrapper), {"PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}
