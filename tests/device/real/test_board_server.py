"""tools/board_server.py: what it says of a machine, and its tracker."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from mfn_compile.device.real.address import RpcAddress
from mfn_compile.device.real.tracker import count_boards, request_board
from mfn_compile.errors import DeviceError
from tests.device.real.servers import SCRIPT, board_server, tracker

MAGIC = struct.pack("<i", 0x2F271)


class Peer:
    """A connection to a tracker that says whatever a test wants."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.sendall(MAGIC)
        assert self.socket.recv(4) == MAGIC

    def ask(self, *message: object) -> object:
        text = json.dumps(message).encode()
        self.socket.sendall(struct.pack("<i", len(text)) + text)
        size = struct.unpack("<i", self.socket.recv(4))[0]
        return json.loads(self.socket.recv(size))


def serve(peer: Peer, key: str, port: int = 9) -> None:
    assert peer.ask(5, {"key": f"server:{key}", "addr": [None, port]}) == 0
    assert peer.ask(3, key, [port, f"{key}:0.1"], None) == 0


def test_the_check_names_everything_and_its_exit_code_says_whether_all_is_there(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-S", str(SCRIPT), "--check"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1  # -S: without site-packages no wheel is there
    assert "MISSING apache-tvm absent, 0.27.0.post1 is needed" in done.stdout
    assert "ok      Python 3." in done.stdout
    assert "MiB free" in done.stdout


@pytest.mark.parametrize("given", ["--tracker=nine", "--tracker=a:0", "--ports=a-b", "--what"])
def test_a_wrong_option_is_refused(given: str) -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), given], capture_output=True, timeout=60)
    assert done.returncode == 2


def test_the_versions_it_wants_are_those_of_this_toolkit() -> None:
    text = (SCRIPT.parents[1] / "pyproject.toml").read_text()
    wheels = board_server().WHEELS
    assert f"apache-tvm=={wheels['apache-tvm']}" in text
    assert f"apache-tvm-ffi=={wheels['apache-tvm-ffi']}" in text


def test_a_tracker_gives_each_board_once_and_forgets_those_that_leave() -> None:
    with tracker() as port:
        address = RpcAddress("127.0.0.1", port, "pi")
        board, other = Peer(port), Peer(port)
        serve(board, "pi", 7001)
        serve(other, "rock")
        assert count_boards(address, 5) == 1
        assert board.ask(7) == ["pi:0.1"]
        place = request_board(address, 5)
        assert (place.host, place.port, place.word) == ("127.0.0.1", 7001, "pi:0.1")
        assert board.ask(7) == []
        with pytest.raises(DeviceError, match="is busy, or lost"):
            request_board(address, 0.5)
        assert board.ask(1) == 0
        board.socket.close()
        with pytest.raises(DeviceError, match="It knows rock"):
            wait_until_gone(address)


def test_a_board_that_was_given_is_not_pending_any_more() -> None:
    with tracker() as port:
        address = RpcAddress("127.0.0.1", port, "pi")
        board = Peer(port)
        for _ in range(300):  # the answers to two connections must not overtake one another
            serve(board, "pi", 7001)
            request_board(address, 5)
            assert board.ask(7) == []


def wait_until_gone(address: RpcAddress) -> None:
    for _ in range(200):
        count_boards(address, 5)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        MAGIC + struct.pack("<i", -5),
        MAGIC + struct.pack("<i", 1 << 30),
        MAGIC + struct.pack("<i", 3) + b"[9]",
        MAGIC + struct.pack("<i", 2) + b"{}",
        MAGIC + struct.pack("<i", 4) + b"\xff\xfe\x00[",
        MAGIC + struct.pack("<i", 13) + b'[3,"k",["a"]]',
    ],
)
def test_a_hostile_peer_loses_its_connection_and_others_do_not(sent: bytes) -> None:
    with tracker() as port, socket.create_connection(("127.0.0.1", port), timeout=10) as peer:
        peer.sendall(sent)
        while peer.recv(64):
            pass
        board = Peer(port)
        serve(board, "pi")
        assert count_boards(RpcAddress("127.0.0.1", port, "pi"), 5) == 1
