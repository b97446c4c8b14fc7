"""Whole networks: values, entry points, threads, and what is in the object."""

from __future__ import annotations

import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from numpy.typing import NDArray

from mfn_compile.arm import oracle
from mfn_compile.arm.codegen import Machine, compile_network, object_code
from mfn_compile.arm.graph import IntegerGraph
from mfn_compile.arm.host import HostNetwork, host_machine
from mfn_compile.arm.network import ERROR_ALIGNMENT, ERROR_NULL
from tests.arm import emulated
from tests.arm.conftest import Quantized
from tests.arm.graphs import Draft, Style, assert_same, images

Array = NDArray[Any]
RANDOM_IMAGES = 64
THREADS = 4
CPUS = {"cortex-a53": emulated.NEON, "cortex-a76": emulated.DOTPROD}
MACHINES = {"host": host_machine(), "neon": emulated.NEON, "dotprod": emulated.DOTPROD}


def one_of_each() -> IntegerGraph:
    """A graph with every kind of node."""
    draft = Draft(1, Style(slope="usual", zero="each"))
    x = draft.conv(draft.image(9, 10), 24, (3, 3), stride=(2, 2), padding=(1, 1, 1, 1))
    y = draft.conv(x, 0, (3, 3), padding=(1, 1, 1, 1))
    x = draft.add(draft.conv(y, 24, skip=x), draft.lookup(y))
    y = draft.dequantize(x)
    y = draft.float_add(y, draft.float_conv(y, 24, (3, 3), padding=(1, 1, 1, 1)))
    x = draft.conv(draft.quantize(y), 0, draft.shape(y)[:2])
    return draft.graph(draft.normalize(draft.conv(x, 20, to_float=True)))


def assert_network(graph: IntegerGraph, rgb: Array) -> None:
    """Every tensor and embedding on the host equals the oracle's."""
    kept, embeddings = HostNetwork(graph, keep=True), HostNetwork(graph).embed(rgb)
    for image, embedding in zip(rgb, embeddings, strict=True):
        wanted = oracle.run(graph, image)
        assert_same(graph, kept.tensors(image), wanted)
        assert np.array_equal(embedding, wanted[graph.output].ravel())


def test_tiny_network_equals_the_oracle(tiny: Quantized) -> None:
    assert_network(tiny.graph, images(tiny.graph, RANDOM_IMAGES))
    assert_network(tiny.graph, tiny.faces[:8])


def test_quantized_entry_takes_what_the_table_gives(tiny: Quantized) -> None:
    rgb = images(tiny.graph, 5)
    network = HostNetwork(tiny.graph)
    first = tiny.graph.nodes[0].output
    integers = np.stack([oracle.run(tiny.graph, image)[first] for image in rgb])
    assert np.array_equal(network.embed(integers), network.embed(rgb))


def test_no_images_and_wrong_images(tiny: Quantized) -> None:
    network = HostNetwork(tiny.graph)
    rgb = images(tiny.graph, 2)
    assert network.embed(rgb[:0]).shape == (0, tiny.graph.embedding)
    assert np.array_equal(network.embed(rgb[::-1])[::-1], network.embed(rgb))
    for wrong in (rgb[:, 1:], rgb.astype(np.float32), rgb[0]):
        with pytest.raises(ValueError, match="images are"):
            network.embed(wrong)


def test_threads_do_not_disturb_each_other(tiny: Quantized) -> None:
    network = HostNetwork(tiny.graph)
    parts = [images(tiny.graph, 64, seed) for seed in range(THREADS)]
    alone = [network.embed(part) for part in parts]
    together = Barrier(THREADS)

    def work(part: Array) -> list[Array]:
        together.wait()
        return [network.embed(part) for _ in range(5)]

    with ThreadPoolExecutor(THREADS) as pool:
        for found, wanted in zip(pool.map(work, parts), alone, strict=True):
            assert all(np.array_equal(each, wanted) for each in found)


_CALLER = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef int entry(const void *, float *, void *);
entry mfn_embed, mfn_embed_quantized;
static entry *const entries[] = { mfn_embed, mfn_embed_quantized };

static int expect(int found, int wanted) {
    if (found != wanted) fprintf(stderr, "%%d instead of %%d\\n", found, wanted);
    return found != wanted;
}

int main(void) {
    /* No byte to spare, and no better alignment than the contract asks for. */
    uint8_t *images = malloc(1 + 2 * %(size)d), *image = images + 1;
    float *embeddings = malloc(4 + 4 * %(width)d), *embedding = embeddings + 1;
    uint8_t *workspace = aligned_alloc(64, %(peak)d);
    int bad = 0;
    if (fread(image, 1, 2 * %(size)d, stdin) != 2 * %(size)d) return 2;
    for (int e = 0; e < 2; ++e) {
        bad += expect(entries[e](NULL, embedding, workspace), %(null)d);
        bad += expect(entries[e](image, NULL, workspace), %(null)d);
        bad += expect(entries[e](image, embedding, NULL), %(null)d);
        for (int off = 1; off < 64; ++off)
            bad += expect(entries[e](image, embedding, workspace + off), %(alignment)d);
        for (int again = 0; again < 2; ++again) {
            bad += expect(entries[e](image + e * %(size)d, embedding, workspace), 0);
            fwrite(embedding, 4, %(width)d, stdout);
        }
    }
    free(images); free(embeddings); free(workspace);
    return bad != 0;
}
"""


@dataclass(frozen=True)
class Caller:
    """A C program around a compiled network, its input, and what it must print."""

    program: Path
    given: bytes
    wanted: bytes

    def check(self, *command: str) -> None:
        done = subprocess.run([*command, self.program], input=self.given, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        assert done.stdout == self.wanted


def make_caller(graph: IntegerGraph, machine: Machine, folder: Path, *options: str) -> Caller:
    """Compile the network, and the C program with gcc."""
    compiled = compile_network(graph, machine)
    local = machine == host_machine()
    compiler = "gcc" if local else emulated.COMPILER
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    (folder / "network.o").write_bytes(object_code(compiled.llvm))
    text = _CALLER % {
        "size": graph.height * graph.width * 3, "width": graph.embedding,
        "peak": compiled.plan.peak, "null": ERROR_NULL, "alignment": ERROR_ALIGNMENT,
    }  # fmt: skip
    (folder / "main.c").write_text(text)
    link = "-no-pie" if local else "-static"
    command = [compiler, "-O1", "-g", "-Wall", "-Werror", link, *options]
    subprocess.run([*command, "main.c", "network.o", "-o", "main"], cwd=folder, check=True)
    rgb = images(graph, 3)[2]
    tensors = oracle.run(graph, rgb)
    given = rgb.tobytes() + tensors[graph.nodes[0].output].tobytes()
    return Caller(folder / "main", given, tensors[graph.output].tobytes() * 4)


def test_entry_points_refuse_bad_pointers_and_need_no_alignment_of_data(
    tiny: Quantized, tmp_path: Path
) -> None:
    make_caller(tiny.graph, host_machine(), tmp_path).check()


@pytest.mark.parametrize("cpu", CPUS)
def test_entry_points_under_emulation(cpu: str, tiny: Quantized, tmp_path: Path) -> None:
    emulated.need_emulator()
    make_caller(tiny.graph, CPUS[cpu], tmp_path).check(emulated.EMULATOR, "-cpu", cpu)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tiny", "each"])
def test_no_byte_outside_of_the_buffers_is_touched(
    kind: str, tiny: Quantized, tmp_path: Path
) -> None:
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind is not installed")
    graph = tiny.graph if kind == "tiny" else one_of_each()
    caller = make_caller(graph, host_machine(), tmp_path)
    caller.check("valgrind", "--quiet", "--error-exitcode=3", "--leak-check=full")


@pytest.mark.slow
def test_address_sanitizer_sees_nothing(tiny: Quantized, tmp_path: Path) -> None:
    flags = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    make_caller(tiny.graph, host_machine(), tmp_path, *flags).check()


@pytest.fixture(scope="module", params=MACHINES)
def elf(request: pytest.FixtureRequest) -> ELFFile:
    """The object of a graph with every kind of node."""
    compiled = compile_network(one_of_each(), MACHINES[request.param], suffix="_x")
    return ELFFile(io.BytesIO(object_code(compiled.llvm)))


def symbols(elf: ELFFile) -> list[Any]:
    return list(elf.get_section_by_name(".symtab").iter_symbols())


def test_object_needs_nothing_but_memcpy(elf: ELFFile) -> None:
    undefined = {s.name for s in symbols(elf) if s["st_shndx"] == "SHN_UNDEF" and s.name}
    assert undefined <= {"memcpy", "memset"}


def test_object_shows_its_entry_points_only(elf: ELFFile) -> None:
    visible = {
        s.name for s in symbols(elf)
        if s["st_info"]["bind"] != "STB_LOCAL" and s["st_shndx"] != "SHN_UNDEF"
    }  # fmt: skip
    assert visible == {"mfn_embed_x", "mfn_embed_quantized_x"}


def test_object_has_no_data_that_can_be_written(elf: ELFFile) -> None:
    kept = [s for s in elf.iter_sections() if s["sh_flags"] & SH_FLAGS.SHF_ALLOC and s["sh_size"]]
    assert kept
    for section in kept:
        assert not section["sh_flags"] & SH_FLAGS.SHF_WRITE, section.name
        assert not section.name.startswith((".init", ".ctors", ".tbss", ".tdata")), section.name


def digests(machine: str) -> list[str]:
    """SHA-256 of the LLVM IR and of the object."""
    compiled = compile_network(one_of_each(), MACHINES[machine])
    code = compiled.llvm.encode(), object_code(compiled.llvm)
    return [hashlib.sha256(part).hexdigest() for part in code]


def elsewhere(machine: str, hash_seed: str) -> list[str]:
    """`digests` in a fresh process."""
    code = f"from tests.arm.test_network import digests; print(*digests({machine!r}))"
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout.split()


@pytest.mark.parametrize("machine", MACHINES)
def test_compiling_twice_gives_the_same_bytes(machine: str) -> None:
    assert digests(machine) == digests(machine)


def test_another_process_gives_the_same_bytes() -> None:
    assert elsewhere("neon", "1") == elsewhere("neon", "2") == digests("neon")


def test_host_machine_is_one_that_runs_here() -> None:
    isa = host_machine().isa
    arm = platform.machine() in ("aarch64", "arm64")
    assert isa in (("neon", "dotprod") if arm else ("avx2", "generic"))
