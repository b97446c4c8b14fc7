"""Compiled networks in AArch64 programs under QEMU: many networks in one program."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mfn_compile.arm.codegen import Compiled, Machine, object_code
from mfn_compile.arm.host import read_tensors

Array = NDArray[Any]
COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
TRIPLE = "aarch64-linux-gnu"
NEON = Machine("neon", TRIPLE, "cortex-a53", ("neon",))
DOTPROD = Machine("dotprod", TRIPLE, "cortex-a76", ("neon", "dotprod"))
I8MM = Machine("i8mm", TRIPLE, "neoverse-n2", ("neon", "dotprod", "i8mm"))
GUARD = 4096  # bytes on both sides of the workspace that must keep their value

_SOURCE = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GUARD = %(guard)d };
typedef int entry(const uint8_t *, float *, void *);
%(prototypes)s
static const struct { entry *run; size_t images, bytes, width, peak; int keep; } jobs[] = {
%(rows)s
};

static void check(int good, const char *what, size_t job) {
    if (good) return;
    fprintf(stderr, "job %%zu: %%s\\n", job, what);
    exit(1);
}

int main(void) {
    for (size_t j = 0; j < sizeof jobs / sizeof *jobs; ++j) {
        size_t whole = (jobs[j].peak + 2 * GUARD + 63) / 64 * 64;
        uint8_t *input = malloc(jobs[j].bytes), *place = aligned_alloc(64, whole);
        float *embedding = malloc(4 * jobs[j].width);
        for (size_t i = 0; i < jobs[j].images; ++i) {
            check(fread(input, 1, jobs[j].bytes, stdin) == jobs[j].bytes, "short input", j);
            memset(place, 0xA5, whole);
            check(jobs[j].run(input, embedding, place + GUARD) == 0, "error code", j);
            for (size_t k = 0; k < GUARD; ++k) {
                check(place[k] == 0xA5, "wrote in front of the workspace", j);
                check(place[GUARD + jobs[j].peak + k] == 0xA5, "wrote behind the workspace", j);
            }
            fwrite(embedding, 4, jobs[j].width, stdout);
            if (jobs[j].keep) fwrite(place + GUARD, 1, jobs[j].peak, stdout);
        }
        free(input); free(place); free(embedding);
    }
    return 0;
}
"""


@dataclass(frozen=True, eq=False)
class Job:
    """One compiled network and its images [N, H, W, 3]: uint8 RGB, or normalized and `quantized`.

    `keep` reads all tensors back; it needs a network compiled with overlap=False. Networks of one
    program have different suffixes.
    """

    compiled: Compiled
    images: Array
    keep: bool = False
    quantized: bool = False

    @property
    def entry(self) -> str:
        """The C function to call."""
        kind = "mfn_embed_quantized" if self.quantized else "mfn_embed"
        return kind + self.compiled.suffix


@dataclass(frozen=True, eq=False)
class Result:
    """float32 [N, D], and for every image the tensors by name where they were kept."""

    embeddings: Array
    tensors: list[dict[str, Array]]


def need_emulator() -> None:
    """Skip where the cross compiler or QEMU is missing."""
    for tool in (COMPILER, EMULATOR):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


def run(program: Path, jobs: Sequence[Job], cpu: str) -> list[Result]:
    """Run the program that `build` made of these jobs on an emulated CPU."""
    given = b"".join(job.images.tobytes() for job in jobs)
    done = subprocess.run([EMULATOR, "-cpu", cpu, program], input=given, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    output, results = memoryview(done.stdout), []
    for job in jobs:
        result, output = _read(job, output)
        results.append(result)
    assert not output
    return results


def build(jobs: Sequence[Job], folder: Path) -> Path:
    """Link all networks with one C program, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    objects = {}
    for job in jobs:
        path = folder / f"network{job.compiled.suffix}.o"
        if path not in objects:
            objects[path] = job.compiled
            path.write_bytes(object_code(job.compiled.llvm))
    source, program = folder / "main.c", folder / "main"
    source.write_text(_source(jobs))
    command = [COMPILER, "-O1", "-static", "-Wall", "-Werror", source, *objects, "-o", program]
    subprocess.run(command, check=True)
    return program


def _source(jobs: Sequence[Job]) -> str:
    rows = [
        f"    {{ {job.entry}, {len(job.images)}, {job.images[0].nbytes}, "
        f"{job.compiled.program.graph.embedding}, {job.compiled.plan.peak}, {int(job.keep)} }},"
        for job in jobs
    ]
    entries = sorted({job.entry for job in jobs})
    prototypes = [f"entry {name};" for name in entries]
    return _SOURCE % {
        "guard": GUARD, "prototypes": "\n".join(prototypes), "rows": "\n".join(rows),
    }  # fmt: skip


def _read(job: Job, output: memoryview) -> tuple[Result, memoryview]:
    width, peak = job.compiled.program.graph.embedding * 4, job.compiled.plan.peak
    embeddings, tensors = [], []
    for _ in job.images:
        embeddings.append(np.frombuffer(output[:width], np.float32))
        output = output[width:]
        if job.keep:
            tensors.append(read_tensors(job.compiled, bytes(output[:peak])))
            output = output[peak:]
    return Result(np.stack(embeddings), tensors), output
