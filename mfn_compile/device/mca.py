"""Cycles of blocks from llvm-mca, for cores whose pipeline LLVM describes well."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mfn_compile.arm.firmware.process import Finished, run_tool
from mfn_compile.device.assembly import disassemble, without_target, without_write_back
from mfn_compile.errors import DeviceError
from mfn_compile.evaluate.decode import map_cores

OLDEST = 19  # has the options below and a model of Neoverse N1
INSTALL = f"sudo apt install llvm-{OLDEST}"
FEATURES = "+v8.2a,+fullfp16,+fp16fml,+dotprod,+i8mm,+bf16,+rcpc,+crc,+aes,+sha2,+lse"
ITERATIONS = 100  # of a block, back to back
BATCH = 4000  # instructions in one process, about
SECONDS = 600.0
_NAME = re.compile(r"^llvm-mca(-\d+)?$")
_VERSION = re.compile(r"LLVM version (\d+)(\.[\w.]+)?")


@dataclass(frozen=True)
class Tool:
    """An llvm-mca; `version` as it says it."""

    path: str
    version: str

    @property
    def major(self) -> int:
        """The first number of the version."""
        return int(self.version.partition(".")[0])


def find_mca() -> Tool:
    """The newest llvm-mca on PATH: llvm-mca itself, or llvm-mca-NN.

    Raises:
        DeviceError: there is none, or only ones that are too old.
    """
    return _find(os.environ.get("PATH", os.defpath))


@cache
def _find(path: str) -> Tool:
    found = [tool for place in _candidates(path) if (tool := _tool(place)) is not None]
    newest = max(found, key=lambda tool: tool.major, default=None)
    if newest is None or newest.major < OLDEST:
        why = "none is on PATH" if newest is None else f"the newest on PATH is {newest.version}"
        raise DeviceError(
            f"The virtual board needs llvm-mca {OLDEST} or newer for this core",
            why=why,
            hint=f"Install it: {INSTALL}; cortex-a53 and cortex-a55 need none",
        )
    return newest


def _candidates(path: str) -> list[str]:
    places = []
    for folder in path.split(os.pathsep):
        try:
            names = sorted(os.listdir(folder or "."))
        except OSError:
            continue
        places += [os.path.join(folder or ".", name) for name in names if _NAME.match(name)]
    return [place for place in places if os.access(place, os.X_OK)]


def _tool(place: str) -> Tool | None:
    match = _VERSION.search(run_tool([place, "--version"], timeout=60).stdout)
    return Tool(place, match[1] + (match[2] or "")) if match else None


@dataclass(frozen=True)
class Mca:
    """LLVM's model of a CPU; `dispatch` instructions a cycle where LLVM does not know better."""

    cpu: str
    dispatch: int | None
    tool: Tool

    @property
    def identity(self) -> str:
        """What its numbers depend on, beside the code of this package."""
        width = "" if self.dispatch is None else f" dispatch {self.dispatch}"
        return f"llvm-mca {self.tool.version} {self.cpu}{width}"

    def cycles(self, codes: Sequence[bytes]) -> list[float]:
        """Cycles of one run of each block, from many runs back to back.

        Raises:
            DeviceError: llvm-mca failed.
        """
        return [one for batch in map_cores(self._batch, _batches(codes)) for one in batch]

    def _batch(self, codes: Sequence[bytes]) -> list[float]:
        with tempfile.TemporaryDirectory(prefix="mfn-mca-") as folder:
            source = Path(folder, "blocks.s")
            source.write_text(_source(codes), encoding="ascii")
            done = run_tool(self._command(source), timeout=SECONDS)
        return self._read(done, len(codes))

    def _command(self, source: Path) -> list[str]:
        width = [] if self.dispatch is None else [f"-dispatch={self.dispatch}"]
        return [
            *(self.tool.path, "-mtriple=aarch64-linux-gnu", f"-mcpu={self.cpu}"),
            *(f"-mattr={FEATURES}", f"-iterations={ITERATIONS}", *width),
            *("-call-latency=1", "--skip-unsupported-instructions=any"),
            *("--json", "-instruction-info=0", "-resource-pressure=0", str(source)),
        ]

    def _read(self, done: Finished, number: int) -> list[float]:
        try:
            regions = json.loads(done.stdout)["CodeRegions"] if done.code == 0 else []
            found = dict(map(_region, regions))
        except (ValueError, KeyError, TypeError) as error:
            raise self._failed(f"its answer cannot be read: {error}") from error
        if done.code != 0 or set(found) != set(range(number)):
            why = done.first_lines() or f"it ended with {done.code}"
            raise self._failed(f"{len(found)} of {number} blocks have cycles: {why}")
        return [found[index] for index in range(number)]

    def _failed(self, why: str) -> DeviceError:
        return DeviceError(
            "llvm-mca failed on the program's code",
            where=self.tool.path,
            why=why,
            hint=f"Install another version: {INSTALL}",
        )


def _region(document: Any) -> tuple[int, float]:
    summary = document["SummaryView"]
    return int(document["Name"][1:]), summary["TotalCycles"] / summary["Iterations"]


def _batches(codes: Sequence[bytes]) -> list[list[bytes]]:
    batches: list[list[bytes]] = []
    room = 0
    for code in codes:
        if room <= 0:
            batches.append([])
            room = BATCH
        batches[-1].append(code)
        room -= len(code) // 4
    return batches


def _source(codes: Sequence[bytes]) -> str:
    lines = []
    for index, code in enumerate(codes):
        lines.append(f"# LLVM-MCA-BEGIN b{index}")
        for instruction in disassemble(code):
            lines += [one.text for one in without_write_back(without_target(instruction))]
        lines.append(f"# LLVM-MCA-END b{index}")
    return "\n".join(lines) + "\n"
