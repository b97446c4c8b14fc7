"""LLVM IR of the entry points that choose a variant by the CPU, without a C library.

On Linux and Android the kernel tells a process its CPU's features in the auxiliary vector, which
getauxval() reads and /proc/self/auxv shows. The file is read here by plain system calls, so that
the archive needs no symbol from outside; where it cannot be read the plain Armv8.0 code runs.
"""

from __future__ import annotations

HWCAP_ASIMDDP_BIT = 20  # Linux: arch/arm64/include/uapi/asm/hwcap.h, the dot product instructions
AT_HWCAP = 16  # Linux: include/uapi/linux/auxvec.h
OPENAT, CLOSE, READ = 56, 57, 63  # Linux: include/uapi/asm-generic/unistd.h
AT_FDCWD = -100
O_CLOEXEC = 0o2000000
AUXV_BYTES = 1024  # 64 entries; Linux fills about 25
PATH = "/proc/self/auxv"

HWCAP2_I8MM_BIT, AT_HWCAP2 = 13, 26  # from the same two files
_PARAMETERS = ("image", "embedding", "workspace")
_MORE = {"mfn_embed_parallel": ("parallel_for", "context")}
_GROUP = "#9"
_ORDER = ("neon", "dotprod", "i8mm")
_PATH_IR = f"""
@mfn_auxv = internal unnamed_addr constant [{len(PATH) + 1} x i8] c"{PATH}\\00", align 1"""


def dispatch_ir(
    variants: tuple[str, ...], functions: tuple[str, ...], features: tuple[str, ...] = ()
) -> str:
    """mfn_has_dotprod, mfn_has_i8mm where that is a variant, and `functions`, for a module that
    has the variants.

    Args:
        variants: some of "neon", "dotprod", "i8mm". The last of these that the CPU has is chosen,
            and of several the first without asking.
        functions: "mfn_embed", "mfn_embed_parallel", and "mfn_embed_quantized" where the variants
            have it.
        features: LLVM's names of what the code may use, or must not.
    """
    parts = [_PATH_IR, _has("dotprod", AT_HWCAP, HWCAP_ASIMDDP_BIT)]
    if "i8mm" in variants:
        parts.append(_has("i8mm", AT_HWCAP2, HWCAP2_I8MM_BIT))
    for function in functions:
        parts.append(_choice(function, variants))
    used = f' "target-features"="{",".join(f"+{f}" for f in features)}"' if features else ""
    parts.append(f'attributes {_GROUP} = {{ nounwind "target-cpu"="generic"{used} }}')
    return "\n".join(parts) + "\n"


def _parts(function: str) -> tuple[str, str]:
    """Parameters, and what stands between them and the body: a section of its own where it is
    not for every program.
    """
    names = (*_PARAMETERS, *_MORE.get(function, ()))
    section = f' section ".text.{function}"' if function in _MORE else ""
    return f"({', '.join(f'ptr %{name}' for name in names)})", f"{_GROUP}{section}"


def _choice(function: str, variants: tuple[str, ...]) -> str:
    """The fastest first; where one is left, nothing is asked."""
    signature, attributes = _parts(function)
    first, *others = sorted(variants, key=_ORDER.index)
    lines = [f"define i32 @{function}{signature} {attributes} {{"]
    for name in reversed(others):
        lines += [
            f"  %found_{name} = call i32 @mfn_has_{name}()",
            f"  %has_{name} = icmp ne i32 %found_{name}, 0",
            f"  br i1 %has_{name}, label %with_{name}, label %without_{name}",
            f"with_{name}:",
            f"  %r_{name} = tail call i32 @{function}_{name}{signature}",
            f"  ret i32 %r_{name}",
            f"without_{name}:",
        ]
    lines += [f"  %r = tail call i32 @{function}_{first}{signature}", "  ret i32 %r", "}"]
    return "\n".join(["", *lines])


def _has(name: str, kind: int, number: int) -> str:
    """mfn_has_NAME: a bit of the entry of that kind."""
    opened = _system_call(OPENAT, f"i64 {AT_FDCWD}", "ptr @mfn_auxv", f"i64 {O_CLOEXEC}", "i64 0")
    read = _system_call(READ, "i64 %fd", "ptr %entries", f"i64 {AUXV_BYTES}")
    return f"""
define i32 @mfn_has_{name}() {_GROUP} {{
entry:
  %entries = alloca [{AUXV_BYTES} x i8], align 16
  %fd = {opened}
  %closed = icmp slt i64 %fd, 0
  br i1 %closed, label %no, label %read
read:
  %bytes = {read}
  %shut = {_system_call(CLOSE, "i64 %fd")}
  br label %loop
loop:
  %at = phi i64 [ 0, %read ], [ %next, %step ]
  %next = add i64 %at, 16
  %inside = icmp sle i64 %next, %bytes
  br i1 %inside, label %look, label %no
look:
  %key_at = getelementptr i8, ptr %entries, i64 %at
  %key = load i64, ptr %key_at, align 8
  %here = icmp eq i64 %key, {kind}
  br i1 %here, label %yes, label %step
step:
  br label %loop
yes:
  %value_at = getelementptr i8, ptr %key_at, i64 8
  %value = load i64, ptr %value_at, align 8
  %shifted = lshr i64 %value, {number}
  %bit = and i64 %shifted, 1
  %result = trunc i64 %bit to i32
  ret i32 %result
no:
  ret i32 0
}}"""


def _system_call(number: int, *arguments: str) -> str:
    """Linux's convention: the number in x8, arguments in x0 and up, the result in x0."""
    inputs = ",".join(f"{{x{i}}}" for i in range(len(arguments)))
    constraints = f"={{x0}},{{x8}},{inputs},~{{memory}}"
    values = ", ".join([f"i64 {number}", *arguments])
    return f'call i64 asm sideeffect "svc #0", "{constraints}"({values})'
