import pytest

from mfn_compile.device.real.failures import code_failed, step_failed

PLACE, DOING = "10.0.0.7:9091", "while it did the job round-0"


@pytest.mark.parametrize(
    ("step", "text", "says"),
    [
        ("connect", "Connect to 10.0.0.7:9091 failed", "refused the connection"),
        (
            "connect",
            "Client protocol version mismatch with the server server protocol=0.8.0, "
            "client protocol=0.9.0",
            "another version of TVM",
        ),
        ("old", "Cannot find global function tvm.rpc.server.workpath", "another version of TVM"),
        ("space", "board.so has 9 bytes and did not arrive whole", "No space is left"),
        ("upload", "OSError: [Errno 28] No space left on device", "No space is left"),
        ("upload", "socket closed", "lost while"),
        ("load", "/lib/libc.so.6: version `GLIBC_2.17' not found", "C library is too old"),
        ("load", "board.so: wrong ELF class: ELFCLASS64", "another architecture"),
        ("load", "board.so: invalid ELF header", "another architecture"),
        ("load", "undefined symbol: x", "cannot load the library ("),
        ("load", "RPC channel closed: Connection reset by peer", "lost while"),
        ("run", "Socket error", "lost while"),
        (7, "", "lost while"),
    ],
)
def test_each_failure_of_tvm_has_a_name_and_a_hint(step: object, text: str, says: str) -> None:
    error = step_failed(PLACE, step, text, DOING)
    assert says in str(error)
    assert PLACE in str(error)
    assert error.hint
    assert error.exit_code == 6


@pytest.mark.parametrize(
    ("code", "says", "exit_code"),
    [
        (1, "too little memory", 6),
        (2, "did not arrive whole", 6),
        (3, "no space is left", 6),
        (4, "refused a call", 7),
        (99, "refused a call", 7),
    ],
)
def test_each_exit_code_of_the_program_has_a_name(code: int, says: str, exit_code: int) -> None:
    error = code_failed(PLACE, code)
    assert says in str(error)
    assert error.exit_code == exit_code
