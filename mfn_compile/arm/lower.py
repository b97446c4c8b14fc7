"""Scheduled kernels to LLVM IR: plain C functions, no TVM runtime, no packed calling convention."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm.target import codegen

from mfn_compile.errors import BadInputError
from mfn_compile.target import AARCH64

# Lowering of TVM's S-TIR pipeline without what belongs to GPUs, to host/device splitting and to
# the packed calling convention.
_PASSES = (
    s_tir.transform.CanonicalizeLoop(),
    s_tir.transform.LowerInitBlock(),
    s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
    s_tir.transform.ConvertBlocksToOpaque(),
    s_tir.transform.CompactBufferAllocation(),
    s_tir.transform.LowerMatchBuffer(),
    s_tir.transform.StmtSimplify(),
    s_tir.transform.LowerOpaqueBlock(),
    tirx.transform.FlattenBuffer(),
    tirx.transform.NarrowDataType(32),
    tirx.transform.VectorizeLoop(True),
    tirx.transform.StorageRewrite(),
    tirx.transform.UnrollLoop(),
    tirx.transform.StmtSimplify(),
    tirx.transform.RemoveNoOp(),
    s_tir.transform.RewriteUnsafeSelect(),
    tirx.transform.CommonSubexprElim(),
)
# What a CPU may have and code uses only where its variant says so.
_OPTIONAL = ("sve", "i8mm")
_FINAL = (tirx.transform.LowerTVMBuiltin(), tirx.transform.LowerIntrin())


def make_target(triple: str, cpu: str, features: tuple[str, ...]) -> Any:
    """TVM's LLVM target, its own host.

    Raises:
        BadInputError: LLVM knows no such CPU; it would silently generate code for another.
    """
    plain = tvm.target.Target({"kind": "llvm", "mtriple": triple})
    known = [str(name) for name in codegen.llvm_get_cpu_archlist(plain)]
    if cpu not in known:
        near = difflib.get_close_matches(cpu, known, n=3)
        raise BadInputError(
            f"LLVM knows no {triple.partition('-')[0]} CPU named {cpu!r}",
            where="code.variants of the target",
            hint=f"Nearest: {', '.join(near)}" if near else f"Known: {', '.join(known)}",
        )
    used = [f"+{f}" for f in features]
    if triple.partition("-")[0] in AARCH64:
        used += [f"-{f}" for f in _OPTIONAL if f not in features]
    target = tvm.target.Target({"kind": "llvm", "mtriple": triple, "mcpu": cpu, "mattr": used})
    return target.with_host(target)


def to_llvm(kernels: Mapping[str, tirx.PrimFunc], target: Any) -> str:
    """LLVM IR, optimized, of all kernels; each an internal function of its own name."""
    bound = tirx.transform.BindTarget(target)(tvm.IRModule(dict(kernels)))
    lowered = tvm.ir.transform.Sequential(_PASSES)(bound)
    plain = tvm.IRModule({g.name_hint: _plain(f) for g, f in lowered.functions.items()})
    final = tvm.ir.transform.Sequential(_FINAL)(plain)
    module = tvm.get_global_func("target.build.llvm")(final, target)
    return tidy(str(module.inspect_source("ll")))


def write_object(llvm: str, path: str, scratch: str) -> None:
    """Compile LLVM IR text to a relocatable object at `path`; `scratch` names a .ll file."""
    with open(scratch, "w", encoding="utf-8") as file:
        file.write(llvm)
    tvm.runtime.load_module(scratch).write_to_file(path, "o")


def _plain(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Take raw pointers instead of buffers; declare the buffers over them."""
    parameters, declared = [], []
    for parameter in function.params:
        if isinstance(parameter.ty, tvm.ir.PrimType):
            parameters.append(parameter)
            continue
        kind = tvm.ir.PointerType(tvm.ir.PrimType(parameter.dtype))
        parameters.append(tirx.Var(f"{parameter.name}_data", kind))
        declared.append(tirx.DeclBuffer(parameter, data=parameters[-1]))
    body = tirx.SeqStmt([*declared, function.body])
    return tirx.PrimFunc(parameters, body, attrs=function.attrs)


def tidy(llvm: str) -> str:
    """Make kernels internal; drop half-float helpers, constructor lists and debug records."""
    llvm = re.sub(r"^define (?:dllexport|weak)[^\n]*@__\w+\(.*?^}\n", "", llvm, flags=re.M | re.S)
    llvm = re.sub(r"^@llvm\.global_ctors = .*\n", "", llvm, flags=re.M)
    llvm = re.sub(r"^\s+#dbg_.*\n", "", llvm, flags=re.M)
    llvm = re.sub(r",? !dbg !\d+", "", llvm)
    llvm = re.sub(r"^!llvm\.dbg\.cu = .*\n", "", llvm, flags=re.M)
    llvm = re.sub(r"^define dllexport ", "define internal ", llvm, flags=re.M)
    # TVM names the types of its alias analysis by addresses of this process.
    names: dict[str, str] = {}
    return re.sub(r'!"0x[0-9a-f]+', lambda m: names.setdefault(m[0], f'!"buffer{len(names)}'), llvm)
