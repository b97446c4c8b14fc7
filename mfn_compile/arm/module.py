"""LLVM modules as text: one variant's symbols, attributes and metadata set apart, then merged."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_FLAGS = "!llvm.module.flags"
_DEFINED = re.compile(r"^(?:define [^@\n]*|)@([\w.$]+)(?:\(| =)", re.MULTILINE)
_STEP = 10_000  # larger than any number of attributes or metadata nodes in one variant


@dataclass(frozen=True)
class Part:
    """LLVM IR of one variant; `public` names keep their name, all others get its prefix."""

    variant: str
    llvm: str
    public: tuple[str, ...]


def merge(parts: Sequence[Part], extra: str, target_json: str) -> str:
    """One module of all variants and of `extra`, LLVM IR text without a header of its own.

    Every variant's code and constants lie in sections of their own (.text.mfn_NAME,
    .rodata.mfn_NAME), so that a linker can drop a variant that nobody calls. A function with a
    section .text.mfn.REST comes into .text.mfn_NAME.REST.

    Args:
        target_json: TVM's target as JSON; its LLVM back end reads it from the module. A function's
            own CPU and features go before it.
    """
    header = [line for line in parts[0].llvm.splitlines() if line.startswith("target ")]
    declared: dict[str, str] = {}
    bodies = []
    for number, part in enumerate(parts, start=1):
        text = _separated(part, number * _STEP)
        text = _without(text, r"^(?:target |source_filename|; ModuleID).*\n|^!llvm\..*\n")
        for line in re.findall(r"^declare .*$", text, flags=re.MULTILINE):
            declared.setdefault(re.search(r"@([\w.$]+)\(", line).group(1), line)  # type: ignore[union-attr]
        bodies.append(_without(text, r"^declare .*\n"))
    escaped = target_json.replace('"', "\\22")
    flags = [
        f"{_FLAGS} = !{{!0, !1}}",
        f'!0 = !{{i32 4, !"tvm_target", !"{escaped}"}}',
        '!1 = !{i32 8, !"PIC Level", i32 2}',
    ]
    return "\n".join([*header, *declared.values(), *bodies, extra, *flags]) + "\n"


def _without(text: str, pattern: str) -> str:
    return re.sub(pattern, "", text, flags=re.MULTILINE)


def _separated(part: Part, offset: int) -> str:
    """Rename internal symbols, move the numbering, and name the sections."""
    defined = set(_DEFINED.findall(part.llvm)) - set(part.public)

    def rename(match: re.Match[str]) -> str:
        name = match.group(1)
        short = name.removeprefix("mfn_")
        return f"@mfn_{part.variant}_{short}" if name in defined else match.group(0)

    text = re.sub(r"@([\w.$]+)", rename, part.llvm)
    text = re.sub(r"([#!])(\d+)\b", lambda m: f"{m.group(1)}{int(m.group(2)) + offset}", text)
    home = f".text.mfn_{part.variant}"
    text = re.sub(
        r'^(define .* section "\.text)\.mfn(.*)$', rf"\1.mfn_{part.variant}\2", text, flags=re.M
    )
    text = re.sub(
        r'^(define (?!.* section ").*)( \{)$', rf'\1 section "{home}"\2', text, flags=re.M
    )
    return re.sub(
        r"^(@.* constant .*?)(, align \d+)$",
        rf'\1, section ".rodata.mfn_{part.variant}"\2',
        text,
        flags=re.M,
    )
