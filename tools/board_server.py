#!/usr/bin/env python3
"""The board's side of `mfn-compile --device rpc://HOST:PORT/KEY`.

Needs Python 3.10 or newer and two wheels, apache-tvm and apache-tvm-ffi, with what pip installs
beside them. Copy this one file to the board:

    python3 -m pip install apache-tvm==0.27.0.post1 apache-tvm-ffi==0.1.14.post0
    python3 board_server.py --tracker 192.168.1.10:9190 --key pi4

`--check` only says whether all is there; `--with-tracker` starts a tracker too, `--tracker-only`
starts nothing else and needs Python alone. Whoever reaches the server's port can run code on the
board: use it in a network that you trust.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import platform
import shutil
import signal
import socket
import socketserver
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

WHEELS = {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.14.post0"}
OLDEST_PYTHON = (3, 10)
SPACE = 64 << 20  # bytes for one session's files
PORTS = range(9091, 9191)
TRACKER_MAGIC = 0x2F271
SUCCESS, PING, PUT, REQUEST, UPDATE_INFO, SUMMARY, PENDING = 0, 1, 3, 4, 5, 6, 7
LONGEST = 1 << 20  # bytes of a message to the tracker
CPU = "/sys/devices/system/cpu"


def checks() -> list[tuple[bool, str]]:
    """What the board has: whether each is good enough, and a line about it."""
    version = ".".join(map(str, sys.version_info[:3]))
    found = [(sys.version_info >= OLDEST_PYTHON, f"Python {version}, 3.10 or newer is needed")]
    for name, wanted in WHEELS.items():
        try:
            have = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            have = "absent"
        found.append((have == wanted, f"{name} {have}, {wanted} is needed"))
    machine = platform.machine()
    found.append((machine in ("aarch64", "arm64"), f"architecture {machine}, aarch64 is needed"))
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    found.append((free >= SPACE, f"{free >> 20} MiB free in {folder}, {SPACE >> 20} are needed"))
    return found


def describe() -> str:
    """CPU, governor and clock of the board, as far as it shows them."""
    cores = sorted(Path(CPU).glob("cpu[0-9]*"), key=lambda path: int(path.name[3:]))
    lines = [f"{platform.node()}: {_read('/proc/device-tree/model') or platform.machine()}"]
    for core in cores:
        governor = _read(f"{core}/cpufreq/scaling_governor")
        most = _read(f"{core}/cpufreq/cpuinfo_max_freq")
        if governor and most.isdigit():
            lines.append(f"  {core.name}: {governor}, up to {int(most) // 1000} MHz")
            if governor != "performance":
                lines[-1] += "  (steadier: echo performance > .../scaling_governor)"
    if len(lines) == 1:
        lines.append(f"  {len(cores)} cores; this system shows no governor")
    return "\n".join(lines)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip("\0\n ")
    except OSError:
        return ""


class Tracker(socketserver.ThreadingTCPServer):
    """TVM's tracker protocol in plain Python: TVM's own needs tornado and cloudpickle as well."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: tuple[str, int]) -> None:
        self.lock = threading.RLock()
        self.servers: dict[Talk, dict[str, Any]] = {}
        self.free: dict[str, list[tuple[Talk, list[Any]]]] = {}
        self.waiting: dict[str, list[Talk]] = {}
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, Talk)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is no event here."""

    def match(self, key: str) -> None:
        """Give free boards to those who wait, in order."""
        with self.lock:
            free, waiting = self.free.setdefault(key, []), self.waiting.setdefault(key, [])
            while free and waiting:
                talk, (server, place) = waiting.pop(0), free.pop(0)
                if talk.send([SUCCESS, place]):
                    server.pending.discard(place[2])
                else:
                    free.insert(0, (server, place))

    def forget(self, talk: Talk) -> None:
        """Drop what a closed connection offered or waited for."""
        with self.lock:
            self.servers.pop(talk, None)
            for key, free in self.free.items():
                self.free[key] = [entry for entry in free if entry[0] is not talk]
            for key, waiting in self.waiting.items():
                self.waiting[key] = [other for other in waiting if other is not talk]

    def summary(self) -> dict[str, Any]:
        """What TVM's tracker says too."""
        with self.lock:
            keys = sorted({*self.free, *self.waiting})
            queues = {
                key: {
                    "free": len(self.free.get(key, ())),
                    "pending": len(self.waiting.get(key, ())),
                }
                for key in keys
            }
            return {"queue_info": queues, "server_info": list(self.servers.values())}


class Talk(socketserver.BaseRequestHandler):
    """One connection to the tracker, of a board or of somebody who wants one."""

    server: Tracker

    def setup(self) -> None:
        """Nothing is offered yet."""
        self.pending: set[str] = set()

    def handle(self) -> None:
        """Answer messages until the connection closes."""
        try:
            if struct.unpack("<i", self._receive(4))[0] != TRACKER_MAGIC:
                return
            self.request.sendall(struct.pack("<i", TRACKER_MAGIC))
            while True:
                size = struct.unpack("<i", self._receive(4))[0]
                if not 0 < size <= LONGEST:
                    return
                self._answer(json.loads(self._receive(size)))
        except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError):
            return  # closed, or no message of the protocol

    def finish(self) -> None:
        """Forget it."""
        self.server.forget(self)

    def send(self, value: Any) -> bool:
        """Whether a message could be sent."""
        text = json.dumps(value).encode()
        try:
            self.request.sendall(struct.pack("<i", len(text)) + text)
        except OSError:
            return False
        return True

    def _answer(self, message: list[Any]) -> None:
        code, host = message[0], self.client_address[0]
        tracker = self.server
        if code == PUT:
            key, (port, word) = message[1], message[2]
            named = message[3] if len(message) > 3 and message[3] else host
            with tracker.lock:
                self.pending.add(word)
                tracker.free.setdefault(key, []).append((self, [named, port, word]))
                self.send(SUCCESS)
            tracker.match(key)
        elif code == REQUEST:
            with tracker.lock:
                tracker.waiting.setdefault(message[1], []).append(self)
            tracker.match(message[1])
        elif code == UPDATE_INFO:
            info = dict(message[1])
            info["addr"] = [info["addr"][0] or host, *info["addr"][1:]]
            with tracker.lock:
                tracker.servers[self] = info
            self.send(SUCCESS)
        elif code == SUMMARY:
            self.send([SUCCESS, tracker.summary()])
        elif code == PENDING:
            with tracker.lock:  # a board that was just given away is no longer pending
                self.send(sorted(self.pending))
        elif code == PING:
            self.send(SUCCESS)
        else:
            raise ValueError(f"message {code!r}")

    def _receive(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            part = self.request.recv(count - len(found))
            if not part:
                raise OSError("closed")
            found += part
        return found


def serve(tracker: tuple[str, int], key: str, name: str | None, ports: range) -> None:
    """Serve sessions for ever; a session that crashes does not end the server.

    TVM's own `python -m tvm.exec.rpc_server` does the same with one process more and one package
    more, but stops to listen once a session crashed.
    """
    from tvm.rpc import server  # noqa: PLC0415 - the tracker needs no TVM

    once = server._serving

    def serving(connection: socket.socket, *others: Any) -> None:
        folder = os.getcwd()
        try:
            once(connection, *others)
        except RuntimeError as error:
            print(f"a session crashed: {error}", flush=True)
            os.chdir(folder)
            connection.close()

    server._serving = serving
    multiprocessing.set_start_method("fork", force=True)
    host = "::" if ":" in tracker[0] else "0.0.0.0"
    options = {"port": ports.start, "port_end": ports.stop, "key": key, "custom_addr": name}
    while True:
        state = server.PopenRPCServerState(host, tracker_addr=tracker, **options)
        print(f"port {state.port}, registered as {key!r} at {tracker[0]}:{tracker[1]}", flush=True)
        state.thread.join()
        state.sock.close()
        print("the tracker is away; trying again", flush=True)
        time.sleep(1)


def place(text: str) -> tuple[str, int]:
    """HOST:PORT, an IPv6 host in brackets."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 1 << 16 or not host:
        raise argparse.ArgumentTypeError(f"{text!r} is no HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def port_range(text: str) -> range:
    """FIRST-LAST."""
    first, _, last = text.partition("-")
    if not (first.isdigit() and (last or first).isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no FIRST-LAST")
    return range(int(first), int(last or first) + 1)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="say what is there, and end")
    parser.add_argument("--tracker", type=place, default=("127.0.0.1", 9190), help="HOST:PORT")
    parser.add_argument("--key", default="board", help="what equal boards share")
    parser.add_argument("--ports", type=port_range, default=PORTS, help="FIRST-LAST to listen on")
    parser.add_argument("--name", help="address that this board has for others, behind a router")
    parser.add_argument("--with-tracker", action="store_true", help="start the tracker here too")
    parser.add_argument("--tracker-only", action="store_true", help="start nothing else")
    return parser.parse_args()


def stop(*_: object) -> None:
    """End this process and those it started."""
    os.killpg(os.getpgrp(), signal.SIGKILL)


def main() -> int:
    """Exit code 1 where something is missing."""
    wanted = arguments()
    if not wanted.tracker_only:
        print(describe())
        found = checks()
        for good, line in found:
            print(f"{'ok     ' if good else 'MISSING'} {line}", flush=True)
        bad = sum(not good for good, _ in found)
        if wanted.check or bad:
            return 1 if bad else 0
    if os.getpgrp() != os.getpid():
        os.setpgrp()  # so that stop() ends ours and nobody else
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    if wanted.with_tracker or wanted.tracker_only:
        host = "::" if ":" in wanted.tracker[0] else ""
        try:
            tracker = Tracker((host, wanted.tracker[1]))
        except OSError as error:
            print(f"no tracker on port {wanted.tracker[1]}: {error.strerror}", file=sys.stderr)
            return 1
        print(f"tracker on port {wanted.tracker[1]}", flush=True)
        if wanted.tracker_only:
            tracker.serve_forever()
        threading.Thread(target=tracker.serve_forever, daemon=True).start()
    serve(wanted.tracker, wanted.key, wanted.name, wanted.ports)
    return 0


if __name__ == "__main__":
    sys.exit(main())
