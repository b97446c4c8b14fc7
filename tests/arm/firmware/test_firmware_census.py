"""Kernels that multiply in integers, and kernels that only say so."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfn_compile.arm.firmware.census import Counts, Kind, census, check_integer
from mfn_compile.arm.firmware.facts import Variant
from mfn_compile.errors import ExitCode, InternalCheckError
from tests.arm.firmware import stub

HEAD = "#include <arm_neon.h>\n"
DOT = """
void mfn_k(const int8_t *a, const int8_t *b, float *out, float scale, int rows, int n) {
    for (int r = 0; r < rows; r++) {
        int32x4_t sum = vdupq_n_s32(0);
        for (int i = 0; i < n; i += 32) {
            sum = vdotq_s32(sum, vld1q_s8(a + i), vld1q_s8(b + i));
            sum = vdotq_s32(sum, vld1q_s8(a + i + 16), vld1q_s8(b + i + 16));
        }
        out[r] = (float)vaddvq_s32(sum) * scale;
        b += n;
    }
}
"""
WIDE = """
void mfn_k(const int8_t *a, const int8_t *b, float *out, float scale, int rows, int n) {
    for (int r = 0; r < rows; r++) {
        int32x4_t sum = vdupq_n_s32(0);
        for (int i = 0; i < n; i += 16) {
            int16x8_t p = vmull_s8(vld1_s8(a + i), vld1_s8(b + i));
            sum = vpadalq_s16(sum, vmlal_s8(p, vld1_s8(a + i + 8), vld1_s8(b + i + 8)));
        }
        out[r] = (float)vaddvq_s32(sum) * scale;
        b += n;
    }
}
"""
STRAIGHT = """
void mfn_k(const int8_t *a, const int8_t *b, int32_t *out) {
    int32x4_t sum = vdupq_n_s32(0);
    for (int i = 0; i < 64; i += 16) sum = vdotq_s32(sum, vld1q_s8(a + i), vld1q_s8(b + i));
    vst1q_s32(out, sum);
}
"""
FUSED = """
void mfn_k(const float *a, const float *b, float *out, int n) {
    float32x4_t sum = vdupq_n_f32(0);
    for (int i = 0; i < n; i += 4) sum = vfmaq_f32(sum, vld1q_f32(a + i), vld1q_f32(b + i));
    vst1q_f32(out, sum);
}
"""
FUSED_END = DOT.replace("(float)vaddvq_s32(sum) * scale", "__builtin_fmaf(sum[0], scale, r)")
UNFUSED = """
void mfn_k(const int8_t *a, const int8_t *b, const float *c, float *out, int n) {
    int32x4_t sum = vdupq_n_s32(0);
    float32x4_t other = vdupq_n_f32(0);
    for (int i = 0; i < n; i += 16) {
        sum = vdotq_s32(sum, vld1q_s8(a + i), vld1q_s8(b + i));
        other = vaddq_f32(other, vmulq_f32(vld1q_f32(c + i), vld1q_f32(c + n + i)));
    }
    vst1q_f32(out, vaddq_f32(other, vcvtq_f32_s32(sum)));
}
"""
SCALAR = """
int mfn_k(const int8_t *a, const int8_t *b, int n) {
    int sum = 0;
    for (int i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}
"""
DEPTHWISE = """
void mfn_k(const int8_t *a, const int8_t *w, int32_t *out, int n) {
    int16x8_t k = vmovl_s8(vld1_s8(w));
    for (int i = 0; i < n; i += 8) {
        int16x8_t x = vmovl_s8(vld1_s8(a + i));
        vst1q_s32(out + i, vmlal_s16(vld1q_s32(out + i), vget_low_s16(x), vget_low_s16(k)));
        vst1q_s32(out + i + 4, vmlal_high_s16(vld1q_s32(out + i + 4), x, k));
    }
}
"""
MIXED = SCALAR.replace("mfn_k", "mfn_s") + STRAIGHT.replace(
    "for", '_Pragma("GCC unroll 8") for'
).replace(
    "vst1q_s32(out, sum);",
    "int t = 0; for (int i = 0; i < out[9]; i++) t += a[i] * b[i];"
    " vst1q_s32(out, vaddq_s32(sum, vdupq_n_s32(t)));",
)
MATRIX = STRAIGHT.replace("vdotq_s32", "vmmlaq_s32")
GOOD: list[tuple[str, Variant, Kind]] = [
    (DOT, "dotprod", "dense-int8"),
    (STRAIGHT, "dotprod", "dense-int8"),
    (WIDE, "neon", "dense-int8"),
    (DEPTHWISE, "neon", "depthwise-int8"),
    (DEPTHWISE, "dotprod", "depthwise-int8"),
    (DOT, "dotprod", "depthwise-int8"),
    (FUSED, "neon", "float"),
    (MATRIX, "i8mm", "dense-int8"),
    (DOT, "i8mm", "depthwise-int8"),
]
BAD: list[tuple[str, Variant, Kind, str]] = [
    (FUSED, "neon", "dense-int8", "has 1 float multiply-adds"),
    (FUSED, "dotprod", "dense-int8", "has 1 float multiply-adds"),
    (FUSED, "neon", "depthwise-int8", "has 1 float multiply-adds"),
    (FUSED_END, "dotprod", "dense-int8", "has 1 float multiply-adds"),
    (WIDE, "dotprod", "dense-int8", "has no sdot"),
    (DEPTHWISE, "dotprod", "dense-int8", "has no sdot"),
    (SCALAR, "neon", "dense-int8", "has no smull or smlal"),
    (SCALAR, "neon", "depthwise-int8", "no vector integer multiplication"),
    (DOT, "neon", "dense-int8", "sdot v.* is not for the variant neon"),
    (DOT, "neon", "float", "sdot v.* is not for the variant neon"),
    (MATRIX, "dotprod", "dense-int8", "smmla v.* is not for the variant dotprod"),
    (MATRIX, "neon", "float", "smmla v.* is not for the variant neon"),
    (DOT, "i8mm", "dense-int8", "has no smmla"),
    (UNFUSED, "dotprod", "dense-int8", "1 float multiplications are not fewer than 1"),
    (MIXED, "dotprod", "dense-int8", "multiply one value at a time"),
]


def _compile(folder: Path, source: str) -> bytes:
    # Neither vectorized nor contracted, so that a test's kernel is what it says.
    options = ("-march=armv8.2-a+dotprod+i8mm", "-fno-tree-vectorize", "-ffp-contract=off")
    return stub.compile_c(folder, "kernel", HEAD + source, *options)


@pytest.mark.parametrize(("source", "variant", "kind"), GOOD)
def test_integer_kernels_pass(tmp_path: Path, source: str, variant: Variant, kind: Kind) -> None:
    content = _compile(tmp_path, source)
    (row,) = check_integer("kernel.o", content, variant, {"mfn_k": kind}, {"mfn_k": "conv_1"})
    assert (row.function, row.kind, row.layer) == ("mfn_k", kind, "conv_1")


@pytest.mark.parametrize(("source", "variant", "kind", "why"), BAD)
def test_other_kernels_are_refused(
    tmp_path: Path, source: str, variant: Variant, kind: Kind, why: str
) -> None:
    content = _compile(tmp_path, source)
    with pytest.raises(InternalCheckError, match=why) as caught:
        check_integer("kernel.o", content, variant, {"mfn_k": kind}, {"mfn_k": "conv_1"})
    assert "mfn_k" in str(caught.value)
    assert "is not for" in why or "counted inside of" in str(caught.value)
    assert caught.value.exit_code == ExitCode.INTERNAL_CHECK


def test_a_failure_names_layer_kernel_and_counts(tmp_path: Path) -> None:
    with pytest.raises(InternalCheckError) as caught:
        check_integer(
            "kernel.o",
            _compile(tmp_path, FUSED),
            "neon",
            {"mfn_k": "dense-int8"},
            {"mfn_k": "conv_7"},
        )
    text = str(caught.value)
    assert "(conv_7, mfn_k)" in text
    assert "inside of 1 innermost loops: 1 float_multiply_add, " in text


def test_a_kernel_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InternalCheckError, match=r"kernel\.o has no such function"):
        check_integer("kernel.o", _compile(tmp_path, DOT), "dotprod", {"mfn_x": "float"})


LOOPS = """
    .globl mfn_k
    .type mfn_k, %function
mfn_k:
    fmul s0, s0, s1
1:  smull v0.8h, v1.8b, v2.8b
2:  smlal2 v0.8h, v1.16b, v2.16b
    sadalp v3.4s, v0.8h
    madd x3, x3, x4, x5
    cbz x9, 3f
    subs x0, x0, #1
    b.ne 2b
3:  mul v7.4s, v7.4s, v8.4s
    tbnz w1, #3, 2b
    subs x1, x1, #1
    b.ne 1b
4:  madd w3, w3, w4, w5
    b.eq 4b
    b mfn_other
    .size mfn_k, .-mfn_k
    .globl mfn_other
    .type mfn_other, %function
mfn_other:
    ret
"""


def test_two_variants_in_one_object_are_told_apart_by_name(tmp_path: Path) -> None:
    content = _compile(tmp_path, DOT.replace("mfn_k", "mfn_d_k") + WIDE.replace("mfn_k", "mfn_n_k"))
    neon: dict[str, Kind] = {"mfn_n_k": "dense-int8"}
    check_integer("a.o", content, "neon", neon, scope="mfn_n_")
    check_integer("a.o", content, "dotprod", {"mfn_d_k": "dense-int8"}, scope="mfn_d_")
    with pytest.raises(InternalCheckError, match=r"mfn_d_k.*is not for the variant neon"):
        check_integer("a.o", content, "neon", neon)


def test_counts_go_to_the_innermost_loop(tmp_path: Path) -> None:
    row, other = census({"a.o": stub.compile_c(tmp_path, "a", LOOPS, suffix="s")})
    assert (row.loops, row.innermost_loops, row.scalar_loops) == (3, 2, 0)
    assert row.inner == Counts(
        widening=1, pairwise=1, multiply=1, scalar_multiply=1, instructions=10
    )
    assert row.outer == Counts(widening=1, float_multiply=1, instructions=5)
    assert (other.loops, other.outer.instructions) == (0, 1)


def test_straight_code_is_outside_of_loops(tmp_path: Path) -> None:
    source = STRAIGHT.replace("for (int i", '_Pragma("GCC unroll 8") for (int i')
    (row,) = census({"kernel.o": _compile(tmp_path, source)})
    assert (row.loops, row.outer.dot) == (0, 4)
