"""verify.c, example.c and the README's programs, built for this machine."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from mfn_compile.arm.firmware.golden import golden_files
from mfn_compile.arm.firmware.render import render
from tests.arm.firmware import stub

CHECKED = ("-Wall", "-Wextra", "-Werror", "-pthread")


def _build(bundle: Path, out: Path, *options: str, source: str = "verify.c") -> Path:
    inputs = (f"-I{bundle / 'include'}", bundle / source, bundle / "lib/libmfn.a")
    standard = "-std=c11" if source == "parallel.c" else "-std=c99"
    stub.succeed(stub.tool("gcc"), standard, *CHECKED, *options, *inputs, "-o", out)
    return out


@pytest.fixture(scope="session")
def verify(host_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build(host_bundle, tmp_path_factory.mktemp("verify") / "verify", "-O2")


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """A golden folder that a test may damage."""
    stub.write(tmp_path, golden_files(stub.vectors()))
    return tmp_path / "golden"


def test_every_bit_is_right(verify: Path, host_bundle: Path) -> None:
    output = stub.succeed(verify, cwd=host_bundle)  # golden is the default folder
    lines = output.splitlines()
    assert lines[-1] == "RESULT variants=neon,dotprod vectors=4 failures=0"
    assert "PASS dotprod 002 noise 1 mfn_embed_quantized" in lines
    assert sum("refuses" in line for line in lines) == 3 * 13
    tasks = [line for line in lines if line.endswith(" mfn_embed_parallel")]
    assert [line.split()[2] for line in tasks] == ["000", "003"] * 3
    assert all(line.startswith(("PASS", "RESULT")) for line in lines)


def test_threads_compare_as_well(verify: Path, golden: Path) -> None:
    assert "PASS 8 threads at once" in stub.succeed(verify, golden, "--threads", "8")


@pytest.mark.parametrize("bit", [0, 7])
@pytest.mark.parametrize("suffix", ["f32", "i8", "rgb"])
def test_a_flipped_bit_in_a_vector_is_found(
    verify: Path, golden: Path, suffix: str, bit: int
) -> None:
    path = golden / f"002.{suffix}"
    content = bytearray(path.read_bytes())
    content[5] ^= 1 << bit
    path.write_bytes(content)
    done = stub.run(verify, golden, "--threads", "3")
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 1
    failed = [line for line in lines if line.startswith("FAIL")]
    assert all(" 002 " in line for line in failed)
    assert len([line for line in failed if "thread" not in line]) == (6 if suffix == "f32" else 3)
    assert len([line for line in failed if line.startswith("FAIL thread")]) == 3
    assert "has the bits 0x" in failed[0]


def test_every_single_bit_of_an_embedding_counts(verify: Path, golden: Path) -> None:
    path = golden / "003.f32"
    whole = path.read_bytes()
    for bit in range(0, len(whole) * 8, 7):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        assert stub.run(verify, golden).returncode == 1


@pytest.mark.parametrize("name", ["vectors.txt", "000.rgb", "001.i8", "003.f32"])
@pytest.mark.parametrize("damage", ["missing", "short", "long"])
def test_files_that_are_not_whole_are_named(
    verify: Path, golden: Path, name: str, damage: str
) -> None:
    path = golden / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        more = b"004 more\n" if name == "vectors.txt" else b"x"
        path.write_bytes(content[:-10] if damage == "short" else content + more)
    done = stub.run(verify, golden)
    assert done.returncode == 2
    assert name in done.stderr.decode()
    assert b"RESULT" not in done.stdout


@pytest.mark.parametrize(
    "text",
    ["", "count\n", "count 0\n", "count 5000\n", "count 1\n001 a\n", "count 1\n000\n", "x" * 999],
)
def test_lists_that_make_no_sense_are_refused(verify: Path, golden: Path, text: str) -> None:
    (golden / "vectors.txt").write_text(text)
    assert stub.run(verify, golden).returncode == 2


@pytest.mark.parametrize(
    "arguments",
    [("--threads",), ("--threads", "0"), ("--threads", "x"), ("--help",), ("a", "b"), ("-x",)],
)
def test_wrong_usage(verify: Path, arguments: tuple[str, ...]) -> None:
    done = stub.run(verify, *arguments)
    assert (done.returncode, b"usage: verify" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("FAULT_OVERRUN", "wrote behind the embedding"),
        ("FAULT_WORKSPACE", "wrote behind the workspace"),
        ("FAULT_PARALLEL", "000 black mfn_embed_parallel: wrote behind the workspace"),
        ("FAULT_CHECKS", "refuses workspace 1 byte off: returned 0 instead of 2"),
    ],
)
def test_faults_of_a_library_are_found(tmp_path: Path, fault: str, says: str) -> None:
    bundle = stub.build_host(tmp_path / "host", faults=[f"-D{fault}"])
    done = stub.run(_build(bundle, tmp_path / "verify"), bundle / "golden")
    assert done.returncode == 1
    assert says in done.stdout.decode()


def test_one_variant_alone_and_without_threads(host_bundle: Path, tmp_path: Path) -> None:
    options = ("-DMFN_VARIANT=neon", "-DMFN_NO_THREADS")
    program = _build(host_bundle, tmp_path / "verify", *options)
    output = stub.succeed(program, cwd=host_bundle)
    assert output.splitlines()[-1] == "RESULT variants=neon vectors=4 failures=0"
    assert "dispatcher" not in output
    done = stub.run(program, "--threads", "2", cwd=host_bundle)
    assert done.returncode == 1
    assert b"built without threads" in done.stdout


@pytest.mark.parametrize("options", [(), ("-DMFN_VARIANT=dotprod",), ("-DMFN_NO_THREADS",)])
def test_a_network_without_quantized_input(
    host_bundle: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    bundle = shutil.copytree(host_bundle, tmp_path / "bundle")
    stub.write(bundle, render(stub.facts(quantized_input=False)))
    for path in (bundle / "golden").glob("*.i8"):
        path.unlink()
    program = _build(bundle, tmp_path / "verify", *options, "-O2")
    threads = () if "-DMFN_NO_THREADS" in options else ("--threads", "5")
    lines = stub.succeed(program, *threads, cwd=bundle).splitlines()
    entries = 1 if "-DMFN_VARIANT=dotprod" in options else 3
    assert lines[-1].endswith("vectors=4 failures=0")
    assert sum("refuses" in line for line in lines) == entries * 9
    assert sum(line.endswith(" mfn_embed") for line in lines) == entries * 4
    assert not [line for line in lines if "quantized" in line]
    content = bytearray((bundle / "golden/001.rgb").read_bytes())
    content[8] ^= 1
    (bundle / "golden/001.rgb").write_bytes(content)
    done = stub.run(program, *threads, cwd=bundle)
    assert done.returncode == 1
    assert (done.stdout.count(b"FAIL thread") > 0) == bool(threads)


@pytest.mark.parametrize("source", ["verify.c", "example.c", "parallel.c"])
def test_sanitizers_find_nothing(
    host_bundle: Path, golden: Path, tmp_path: Path, source: str
) -> None:
    options = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    program = _build(host_bundle, tmp_path / "program", *options, source=source)
    if source == "example.c":
        stub.succeed(program, golden / "000.rgb")
        assert stub.run(program, golden / "000.f32").returncode == 2
        return
    if source == "parallel.c":
        stub.succeed(program, golden / "000.rgb", "3", "50")
        assert stub.run(program, golden / "000.f32").returncode == 2
        return
    stub.succeed(program, golden, "--threads", "4")
    (golden / "003.f32").write_bytes(b"")
    assert stub.run(program, golden).returncode == 2  # a leak or an overrun ends otherwise


@pytest.mark.parametrize("source", ["verify.c", "parallel.c"])
def test_thread_sanitizer_finds_nothing(
    host_bundle: Path, golden: Path, tmp_path: Path, source: str
) -> None:
    options = ("-g", "-O1", "-fsanitize=thread")
    program = _build(host_bundle, tmp_path / "program", *options, source=source)
    pool = (golden / "001.rgb", "4", "200")
    done = stub.run(program, *(pool if source == "parallel.c" else (golden, "--threads", "4")))
    if b"unexpected memory mapping" in done.stderr:
        pytest.skip("ThreadSanitizer does not run on this kernel")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.slow
def test_valgrind_finds_nothing(host_bundle: Path, golden: Path, tmp_path: Path) -> None:
    program = _build(host_bundle, tmp_path / "program", "-g", "-O1")
    options = ("--leak-check=full", "--error-exitcode=9", "-q")
    done = stub.run(stub.tool("valgrind"), *options, program, golden, "--threads", "2")
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_pool_of_threads_gives_the_same_bits(host_bundle: Path, tmp_path: Path) -> None:
    program = _build(host_bundle, tmp_path / "parallel", "-O2", source="parallel.c")
    for threads in (1, 2, 3, 7):
        output = stub.succeed(program, host_bundle / "golden/002.rgb", str(threads), "300")
        assert output.startswith(f"{threads} threads: the bits of mfn_embed\nmedian of 300 runs: ")
    for arguments in [(), ("a", "0"), ("a", "99"), ("a", "1", "0"), ("none",)]:
        assert stub.run(program, *arguments).returncode == 2


@pytest.mark.parametrize("remark", [b"", b"# made by hand\n", b"#\n# two\n"])
def test_the_example_reads_raw_bytes_and_ppm(
    host_bundle: Path, tmp_path: Path, remark: bytes
) -> None:
    program = _build(host_bundle, tmp_path / "example", source="example.c")
    raw = (host_bundle / "golden/002.rgb").read_bytes()
    size = f"{stub.WIDTH} {stub.HEIGHT}\n255\n".encode()
    (tmp_path / "face.ppm").write_bytes(b"P6\n" + remark + size + raw)
    for path in (host_bundle / "golden/002.rgb", tmp_path / "face.ppm"):
        assert stub.same(stub.succeed(program, path).splitlines(), 2)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"P6",
        b"P5\n4 6\n255\n" + b"x" * 72,
        b"P6\n6 4\n255\n" + b"x" * 72,
        b"P6\n4 6\n65535\n" + b"x" * 72,
        b"P6\n4 6\n255\n" + b"x" * 71,
        b"P6\n4 6\n255\n" + b"x" * 73,
        b"P6\n# no end",
        b"P6\n99999999999999999999 6\n255\n",
    ],
)
def test_the_example_refuses_other_pictures(
    host_bundle: Path, tmp_path: Path, content: bytes
) -> None:
    program = _build(host_bundle, tmp_path / "example", source="example.c")
    (tmp_path / "face.ppm").write_bytes(content)
    done = stub.run(program, tmp_path / "face.ppm")
    assert (done.returncode, b"not an RGB image of 6 x 4" in done.stderr) == (2, True)
    assert stub.run(program).returncode == 2
    assert stub.run(program, tmp_path / "nothing.rgb").returncode == 2


def test_the_readmes_python_works(host_bundle: Path) -> None:
    program = stub.snippet(host_bundle, "python")
    assert stub.same(stub.succeed(sys.executable, "-c", program, cwd=host_bundle).split(), 0)


def test_the_readmes_cpp_works(host_bundle: Path, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "main.cpp").write_text(stub.snippet(host_bundle, "cpp"))
    strict = ("-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
    face = (bundle / "golden/003.rgb").read_bytes()
    compilers = [(stub.tool("g++"), host_bundle)]
    if shutil.which("aarch64-linux-gnu-g++") and shutil.which("qemu-aarch64"):
        compilers.append((stub.tool("aarch64-linux-gnu-g++"), bundle))
    for compiler, place in compilers:
        program = tmp_path / Path(compiler).name.replace("+", "p")
        inputs = (f"-I{place / 'include'}", tmp_path / "main.cpp", place / "lib/libmfn.a")
        stub.succeed(compiler, *strict, *inputs, "-static", "-o", program)
        command = [program] if place == host_bundle else stub.emulate(program)
        assert stub.same(stub.succeed(*command, stdin=face).split(), 3)
        assert stub.run(*command, stdin=face[1:]).returncode == 2


def test_the_readmes_shell_commands_work(host_bundle: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(host_bundle, tmp_path / "bundle")
    stub.tool("pkg-config")
    text = (bundle / "README.md").read_text()
    blocks = [block.split("```", 1)[0] for block in text.split("```sh\n")[1:]]
    environment = {**os.environ, "LD_LIBRARY_PATH": "lib"}
    for block in blocks:
        if "aarch64-" not in block:  # those for other machines: test_firmware_library.py
            script = f"set -e\n{block}"
            stub.succeed("sh", "-c", script, cwd=bundle, env=environment)
    assert len(blocks) == 8
