"""Candidates of the search: what may be changed about an artifact, and in which order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import openvino as ov

from mfn_compile import environment
from mfn_compile.intel.interface import INPUTS, Interface, set_interface
from mfn_compile.intel.ir import number_unnamed_nodes
from mfn_compile.intel.islands import LayerGain, make_float
from mfn_compile.intel.runtime import capabilities, core, supported
from mfn_compile.knob_result import OpenVinoUse
from mfn_compile.model.preprocessing import Preprocessing

HYBRID = Path("/sys/devices/cpu_core")  # Linux has it where a CPU has two kinds of cores
SUFFIX = "/WithoutBiases"  # the frontend's, of a convolution whose bias it adds by itself
WORTH = 0.03  # of its time: what a layer must be faster by in float32 to be a candidate
SHARE = 4  # of the layers a quarter at once at most: an INT8 artifact was asked for
MOST_COUNTS = 4  # of threads that are told about


@dataclass(frozen=True)
class Plan:
    """One way to run the network."""

    properties: Mapping[str, str]
    interface: Interface = "planes"
    float_layers: tuple[str, ...] = ()

    def write(self, source: Path, preprocessing: Preprocessing, xml: Path) -> Path:
        """The IR of this plan, from the default's: `source` itself where nothing differs."""
        if self.interface == "planes" and not self.float_layers:
            return source
        model = core().read_model(str(source))
        make_float(model, self.float_layers)
        model = set_interface(model, self.interface, preprocessing)
        number_unnamed_nodes(model)
        ov.save_model(model, str(xml), compress_to_fp16=False)
        return xml

    def use(self) -> OpenVinoUse:
        """How a user runs it."""
        return OpenVinoUse(
            properties=dict(self.properties),
            input=INPUTS[self.interface],
            float_layers=self.float_layers,
        )


@dataclass(frozen=True)
class Candidate:
    """A change to a plan; `offered` only where it is not for us to choose it."""

    name: str
    properties: Mapping[str, str] = field(default_factory=dict)
    interface: Interface | None = None
    float_layers: tuple[str, ...] = ()
    offered: bool = False

    def applied(self, plan: Plan) -> Plan:
        """`plan` with the change."""
        return replace(
            plan,
            properties={**plan.properties, **self.properties},
            interface=self.interface or plan.interface,
            float_layers=tuple(dict.fromkeys((*plan.float_layers, *self.float_layers))),
        )

    def change(self) -> dict[str, str]:
        """What it sets, for the report."""
        found = dict(self.properties)
        if self.interface:
            found["input"] = INPUTS[self.interface]
        if self.float_layers:
            found["float32"] = ", ".join(self.float_layers)
        return found


def candidates(
    compiled: ov.CompiledModel, device: str, threads: int, layers: list[LayerGain]
) -> tuple[list[Candidate], list[Candidate]]:
    """The built-in list, the likeliest first, and what further layers there are to try.

    Args:
        compiled: the default, whose properties need no candidate.
        layers: the best in float32 first.
    """
    names = tuple(layer.name for layer in layers if layer.gain > WORTH * layer.seconds)
    names = names[: max(1, len(layers) // SHARE)]
    singles = [
        Candidate(f"{layer.name.removesuffix(SUFFIX)} in float32", float_layers=(layer.name,))
        for layer in layers
    ]
    known = supported(device)
    built_in = [
        Candidate("uint8 pixels in, normalized inside", interface="pixels"),
        Candidate("float32 rows in (NHWC)", interface="rows"),
        *(one for one in _settings(device, threads) if _changes(one, compiled, known)),
        *_thread_counts(threads),
    ]
    if len(names) > 1:
        built_in.append(Candidate(f"{len(names)} layers in float32", float_layers=names))
    first = 1 if names else 0
    return [*built_in, *singles[:first]], singles[first:]


def _settings(device: str, threads: int) -> Iterator[Candidate]:
    yield Candidate("throughput hint", {"PERFORMANCE_HINT": "THROUGHPUT"})
    if threads > 1:
        yield Candidate("one stream a thread", {"NUM_STREAMS": str(threads)})
        for kind in ("STATIC", "AUTO"):
            yield Candidate(f"{kind.lower()} partitioner of threads", {"TBB_PARTITIONER": kind})
    for value, word in (("NO", "not pinned"), ("YES", "pinned")):
        yield Candidate(f"threads {word} to cores", {"ENABLE_CPU_PINNING": value})
    for value, word in (("NO", "without"), ("YES", "with")):
        yield Candidate(f"{word} hyper-threading", {"ENABLE_HYPER_THREADING": value})
    if HYBRID.exists():
        yield Candidate("fast cores only", {"SCHEDULING_CORE_TYPE": "PCORE_ONLY"})
    has = capabilities(device)
    for kind, hint in (("BF16", "bf16"), ("FP16", "f16")):
        if kind in has:
            yield Candidate(f"float layers in {hint}", {"INFERENCE_PRECISION_HINT": hint})


def _changes(one: Candidate, compiled: ov.CompiledModel, known: frozenset[str]) -> bool:
    """Whether the runtime knows the properties, and does not have these values anyway."""
    if not known.issuperset(one.properties):
        return False
    return any(_text(compiled, name) != value for name, value in one.properties.items())


def _text(compiled: ov.CompiledModel, name: str) -> str:
    value = compiled.get_property(name)
    if isinstance(value, bool):
        return "YES" if value else "NO"
    return str(value).rpartition(".")[2]  # an enumeration's str is Type.VALUE


def _thread_counts(threads: int) -> Iterator[Candidate]:
    cores = environment.cores()
    counts = sorted({*(2**i for i in range(10)), cores} - {threads})
    for count in [n for n in counts if n <= cores][-MOST_COUNTS:]:
        name = f"{count} thread{'s' if count > 1 else ''}"
        yield Candidate(name, {"INFERENCE_NUM_THREADS": str(count)}, offered=True)
