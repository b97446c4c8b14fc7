"""What the names of kernels say about their work."""

from __future__ import annotations

import re

_GEMM = re.compile(r"^gemm_(\d+)x(\d+)x(\d+)_")
_WINDOW = r"_k(?P<kh>\d+)x(?P<kw>\d+)_s(?P<sh>\d+)x(?P<sw>\d+)_p(?P<pads>\d+_\d+_\d+_\d+)"
_DEPTHWISE = re.compile(rf"^depthwise_(?P<h>\d+)x(?P<w>\d+)x(?P<c>\d+){_WINDOW}")
_FLOAT = re.compile(
    rf"^float_(?P<kind>dense|depthwise)_(?P<h>\d+)x(?P<w>\d+)x(?P<i>\d+)x(?P<c>\d+){_WINDOW}"
)
_STRIPS = re.compile(r"_in(\d+)_")


def calls_of(kernel: str) -> int:
    """How many calls compute one layer: several where it is computed strip by strip.

    Args:
        kernel: symbol without mfn_ and the variant.
    """
    strips = _STRIPS.search(kernel)
    return int(strips[1]) if strips else 1


def macs_of(kernel: str) -> int | None:
    """Multiply-adds of one layer, padding of channels and of the image counted.

    Args:
        kernel: symbol without mfn_ and the variant.

    Returns:
        None for kernels that do not multiply, and for names that say nothing.
    """
    if gemm := _GEMM.match(kernel):
        return int(gemm[1]) * int(gemm[2]) * int(gemm[3])
    match = _DEPTHWISE.match(kernel) or _FLOAT.match(kernel)
    if match is None:
        return None
    top, left, bottom, right = map(int, match["pads"].split("_"))
    rows = _out(int(match["h"]) + top + bottom, int(match["kh"]), int(match["sh"]))
    columns = _out(int(match["w"]) + left + right, int(match["kw"]), int(match["sw"]))
    taps = int(match["kh"]) * int(match["kw"])
    depth = int(match["i"]) if match.groupdict().get("kind") == "dense" else 1
    return rows * columns * int(match["c"]) * taps * depth


def _out(size: int, window: int, stride: int) -> int:
    return (size - window) // stride + 1
