"""Native servers on this machine with a library for it: everything but the emulator."""

from __future__ import annotations

import resource
import shutil
import signal
import socket
import threading
from pathlib import Path

import pytest

from mfn_compile.device.real.measure import Amount, BoardRun, measure_rpc
from mfn_compile.errors import DeviceError, InternalCheckError
from mfn_compile.progress import Progress, SilentProgress
from tests.arm.firmware import stub
from tests.device.real.servers import Boards, Watching, free_port

pytest.importorskip("tvm", reason="TVM is not installed")
HOST = ("gcc",)
SHORT = Amount(rounds=2, warm_up=1, repeats=20)
LONG = Amount(rounds=1, warm_up=4_000_000, repeats=5)  # seconds before the first timed inference


def run(
    bundle: Path,
    boards: Boards,
    key: str,
    resume: Path,
    amount: Amount = SHORT,
    progress: Progress | None = None,
    seconds: float = 60.0,
    compiler: tuple[str, ...] = HOST,
) -> BoardRun:
    return measure_rpc(
        bundle,
        boards.address(key),
        resume=resume,
        progress=progress or SilentProgress(),
        seconds=seconds,
        amount=amount,
        compiler=compiler,
    )


def test_a_board_checks_every_vector_and_is_timed(
    host_stub: Path, host_board: Boards, tmp_path: Path
) -> None:
    found = run(host_stub, host_board, "host", tmp_path)
    assert (found.vectors, found.repeats, found.warm_up, found.threads) == (4, 40, 1, 1)
    assert found.variants == ("neon", "dotprod")
    assert found.variant == "dotprod"  # the stub says that this machine has it
    assert 0 < found.p50_ms <= found.p90_ms <= found.p99_ms
    assert found.layers == ()
    assert any("Kernels were not timed" in text for text in found.warnings)
    assert not list(tmp_path.iterdir()), "a finished measurement leaves nothing to resume from"


def test_a_killed_server_is_an_error_and_the_next_try_does_the_rest(
    host_stub: Path, boards: Boards, tmp_path: Path
) -> None:
    server = boards.start("victim")

    def kill(note: str) -> None:
        if note.startswith("check-dotprod"):
            threading.Timer(0.3, boards.send, (server, signal.SIGKILL)).start()

    with pytest.raises(DeviceError, match="lost while it did the job round-0") as caught:
        run(host_stub, boards, "victim", tmp_path, LONG, Watching(kill))
    assert caught.value.exit_code == 6
    assert "what is finished is kept" in str(caught.value)
    boards.end(server)
    boards.start("victim")
    progress = Watching()
    found = run(host_stub, boards, "victim", tmp_path, LONG, progress)
    assert found.resumed == 2
    assert progress.notes == ["2 of 3 jobs were done by an earlier try"]


def test_a_full_disk_on_the_board_is_named(
    host_stub: Path, host_board: Boards, tmp_path: Path
) -> None:
    server = host_board.running[0].pid  # its sessions inherit the limit of their files
    before = resource.prlimit(server, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    try:
        with pytest.raises(DeviceError, match="No space is left on the board"):
            run(host_stub, host_board, "host", tmp_path)
    finally:
        resource.prlimit(server, resource.RLIMIT_FSIZE, before)


def test_two_boards_share_the_work(host_stub: Path, host_board: Boards, tmp_path: Path) -> None:
    second = host_board.start("host", count=2)
    amount = Amount(rounds=6, warm_up=1_000_000, repeats=5)
    found = run(host_stub, host_board, "host", tmp_path, amount)
    host_board.end(second)
    assert len(found.boards) == 2
    assert found.repeats == 30


def test_a_library_for_another_architecture_is_named(host_board: Boards, tmp_path: Path) -> None:
    bundle = stub.build(tmp_path / "arm")
    with pytest.raises(DeviceError, match="another architecture"):
        run(bundle, host_board, "host", tmp_path / "resume", compiler=(stub.cross(),))


def test_a_bit_that_differs_ends_the_run_as_a_failed_check(
    host_stub: Path, host_board: Boards, tmp_path: Path
) -> None:
    bundle = shutil.copytree(host_stub, tmp_path / "bundle")
    vector = bundle / "golden/002.f32"
    content = bytearray(vector.read_bytes())
    content[5] ^= 1
    vector.write_bytes(content)
    with pytest.raises(InternalCheckError, match="golden vector 2") as caught:
        run(bundle, host_board, "host", tmp_path / "resume")
    assert caught.value.exit_code == 7


def test_no_tracker_no_board_and_no_tracker_at_all(
    host_stub: Path, boards: Boards, tmp_path: Path
) -> None:
    with pytest.raises(DeviceError, match=r"'nobody'.*knows no board at all"):
        run(host_stub, boards, "nobody", tmp_path)
    with pytest.raises(DeviceError, match="tracker cannot be reached"):
        run(host_stub, Boards(free_port()), "k", tmp_path)


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x71\xf2\x02\x00\xff"]
)
def test_something_else_that_listens_is_no_tracker(
    host_stub: Path, tmp_path: Path, answer: bytes
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def talk() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(64)
                connection.sendall(answer)

        threading.Thread(target=talk, daemon=True).start()
        with pytest.raises(DeviceError, match="no tracker of TVM"):
            run(host_stub, Boards(server.getsockname()[1]), "k", tmp_path)


def test_a_tracker_that_says_nothing_is_given_up(host_stub: Path, tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(DeviceError, match="tracker does not answer"),
    ):
        run(host_stub, Boards(server.getsockname()[1]), "k", tmp_path, seconds=1)


def test_a_server_that_refuses_is_named(host_stub: Path, boards: Boards, tmp_path: Path) -> None:
    """A board's port behind which something else answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def refuse() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(64)
                connection.sendall((0xFF271 + 2).to_bytes(4, "little"))  # RPC_CODE_MISMATCH

        threading.Thread(target=refuse, daemon=True).start()
        offer(boards.port, "strict", port)
        with pytest.raises(DeviceError, match="refused the connection"):
            run(host_stub, boards, "strict", tmp_path)


def test_a_server_that_hangs_is_given_up_in_time_and_serves_again(
    host_stub: Path, host_board: Boards, tmp_path: Path
) -> None:
    server = host_board.running[0]
    host_board.send(server, signal.SIGSTOP)
    try:
        with pytest.raises(DeviceError, match="did not answer in time") as caught:
            run(host_stub, host_board, "host", tmp_path, seconds=8)
        assert caught.value.exit_code == 6
    finally:
        host_board.send(server, signal.SIGCONT)
    host_board.wait("host", 1)


def offer(tracker: int, key: str, port: int) -> None:
    """Register a port as a board, for as long as this process lives."""
    import json
    import struct

    connection = socket.create_connection(("127.0.0.1", tracker))
    connection.sendall(struct.pack("<i", 0x2F271))
    connection.recv(4)
    for message in (
        [5, {"key": f"server:{key}", "addr": [None, port]}],
        [3, key, [port, f"{key}:0.5"], None],
    ):
        text = json.dumps(message).encode()
        connection.sendall(struct.pack("<i", len(text)) + text)
        connection.recv(64)
    KEPT.append(connection)


KEPT: list[socket.socket] = []
