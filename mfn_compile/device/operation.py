"""Instructions as the in-order model sees them: registers, and the class that has their timing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from mfn_compile.arm.firmware.code import Instruction
from mfn_compile.device import timing
from mfn_compile.device.timing import Timing

InOrderCore = Literal["a53", "a55"]

_REGISTER = re.compile(r"\b(?P<file>[vqdshbxw])(?P<number>\d+)\b|\b(?P<stack>w?sp)\b")
_OPERAND = re.compile(r",\s*(?![^\[{]*[\]}])")  # commas outside of brackets and braces
_WHOLE = re.compile(r"\.(16b|8h|4s|2d)\b|\bq\d+\b")  # 128 bits
_LANE = re.compile(r"\[\d+\]")
_VECTOR = re.compile(r"\b[vqdshb]\d+\b")
_JUMPS = re.compile(r"^(b|bl|br|blr|ret|cbz|cbnz|tbz|tbnz|b\..*)$")
_SETS_FLAGS = re.compile(r"^(subs|adds|cmp|cmn|ands|tst|bics|fcmpe?|ccm[pn]|negs|adcs|sbcs)$")
_READS_FLAGS = re.compile(r"^(b\.|csel|cset|csinc|csinv|csneg|cinc|cinv|cneg|fcsel|ccm|adc|sbc)")
_NO_RESULT = re.compile(r"^(cmp|cmn|tst|ccm[pn]|fcmpe?|fccmpe?|nop|hint|prfm)$")
# These read the register that they write: sums, insertions, and results in the upper half.
_ACCUMULATES = re.compile(
    r"^(fml[as]|fmlal2?|fmlsl2?|ml[as]|[su]ml[as]l2?|[su]dot|usdot|sudot|[su]mmla|usmmla"
    r"|[su]adalp|[su]abal?2?|sqrdml[as]h|sqdml[as]l2?|[us]r?sra|s[lr]i|bsl|bi[tf]|ins|tbx"
    r"|movk|bfi|bfxil|(xtn|sqxtn|uqxtn|sqxtun|r?shrn|[su]qr?shrn|sqr?shrun|r?addhn|r?subhn|fcvtn)2)$"
)
FLAGS = "flags"


@dataclass(frozen=True)
class Operation:
    """One instruction, ready to be issued.

    Attributes:
        reads: registers that must be ready; v0 and x0 stand for all their parts.
        adds_to: registers that are read and written, as accumulators are.
        writes: registers that are ready `timing.latency` cycles later.
        steps: address register that a vector load or a store changes, ready in the next cycle.
        memory: which port it uses.
    """

    reads: frozenset[str]
    adds_to: frozenset[str]
    writes: frozenset[str]
    steps: frozenset[str]
    memory: Literal["load", "store"] | None
    timing: Timing


def registers(operands: str) -> list[str]:
    """Every register by the name of its file: x for x and w, v for all vector registers."""
    found = []
    for match in _REGISTER.finditer(operands):
        kind = "x" if match["file"] in ("x", "w") else "v"
        found.append("sp" if match["stack"] else f"{kind}{match['number']}")
    return found


@lru_cache(maxsize=1 << 14)
def decode(mnemonic: str, operands: str, core: InOrderCore) -> Operation:
    """The operation of an instruction."""
    is_load = mnemonic.startswith(("ld", "prfm"))
    if "[" in operands and (is_load or mnemonic.startswith("st")):
        return _access(mnemonic, operands, core, is_load=is_load)
    if _JUMPS.match(mnemonic):
        reads = registers(operands) + _flags(_READS_FLAGS, mnemonic)
        return _operation(reads, [], [], timing.BRANCH)
    return _arithmetic(mnemonic, operands, core)


def decode_all(code: tuple[Instruction, ...], core: InOrderCore) -> list[Operation]:
    """The operations of a block."""
    return [decode(one.mnemonic, one.operands, core) for one in code]


def _operation(reads: list[str], adds_to: list[str], writes: list[str], times: Timing) -> Operation:
    others = frozenset(reads) - frozenset(adds_to)
    return Operation(others, frozenset(adds_to), frozenset(writes), frozenset(), None, times)


def _flags(pattern: re.Pattern[str], mnemonic: str) -> list[str]:
    return [FLAGS] if pattern.match(mnemonic) else []


def _access(mnemonic: str, operands: str, core: InOrderCore, *, is_load: bool) -> Operation:
    split = operands.rindex("[")
    values, address = operands[:split], operands[split:]
    moved, pointers = registers(values), registers(address)
    changes = address.rstrip().endswith("!") or "]," in address
    single = _LANE.search(values) is not None
    shape = timing.Shape(
        registers=len(set(moved)),
        vector=_VECTOR.search(values) is not None,
        whole=_WHOLE.search(values) is not None,
        one_lane=single or (is_load and mnemonic.endswith("r") and "{" in values),
        pair=mnemonic.startswith(("ldp", "ldnp")),
    )
    if mnemonic == "prfm":
        moved = []
    changed = pointers[:1] if changes else []
    # A pointer that a scalar load changes is as late as what it loads: the rule that the published
    # times of boards were compared with.
    late = is_load and not shape.vector
    reads = pointers + (moved if not is_load or single else [])
    times = timing.of_load(mnemonic, shape, core) if is_load else timing.of_store(mnemonic, shape)
    return Operation(
        reads=frozenset(reads),
        adds_to=frozenset(),
        writes=frozenset((moved if is_load else []) + (changed if late else [])),
        steps=frozenset([] if late else changed),
        memory="load" if is_load else "store",
        timing=times,
    )


def _arithmetic(mnemonic: str, operands: str, core: InOrderCore) -> Operation:
    parts = _OPERAND.split(operands) if operands else []
    flags_read, flags_set = _flags(_READS_FLAGS, mnemonic), _flags(_SETS_FLAGS, mnemonic)
    has_result = bool(parts) and not _NO_RESULT.match(mnemonic)
    writes = registers(parts[0]) if has_result else []
    reads = [name for part in (parts[1:] if has_result else parts) for name in registers(part)]
    into_lane = mnemonic in ("mov", "ins") and has_result and _LANE.search(parts[0]) is not None
    adds_to = writes if into_lane or _ACCUMULATES.match(mnemonic) else []
    if _VECTOR.search(operands):
        times = timing.of_vector(
            mnemonic,
            core,
            whole=_WHOLE.search(operands) is not None,
            to_general=bool(writes) and not writes[0].startswith("v"),
            into_lane=into_lane,
        )
    else:
        times = timing.of_scalar(mnemonic)
    return _operation(reads + flags_read, adds_to, writes + flags_set, times)
