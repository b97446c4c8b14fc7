"""Runs on the virtual board, in the AArch64 Python: one inference by ncnn between the markers.

    ncnn_inference.py PARAM IMAGE-SIZE HALF

PARAM is a network without weights, HALF is 1 where the core has float16 arithmetic. The first
inference chooses kernels and fills caches, the second one is counted.
"""

from __future__ import annotations

import ctypes
import sys

import ncnn  # type: ignore[import-not-found,unused-ignore]  # of the AArch64 root

GETPID, MARK = 172, 0x4D464E42  # the plugin's markers for programs without inline assembly


def main() -> None:
    """Run it twice."""
    path, size, half = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "1"
    libc = ctypes.CDLL(None)
    net = ncnn.Net()
    net.opt.num_threads = 1
    net.opt.use_vulkan_compute = False
    net.opt.lightmode = True
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = half
    if net.load_param(path) != 0 or net.load_model(ncnn.DataReaderFromEmpty()) != 0:
        sys.exit(f"ncnn does not take {path}")
    image = ncnn.Mat(size, size, 3)  # filled without numpy, which takes seconds to import here
    image.fill(0.01)
    first, last = net.input_names()[0], net.output_names()[0]

    def run() -> int:
        extractor = net.create_extractor()
        extractor.input(first, image)
        return int(extractor.extract(last)[0])

    code = run()
    libc.syscall(GETPID, ctypes.c_long(MARK), ctypes.c_long(1))
    code = code or run()
    libc.syscall(GETPID, ctypes.c_long(MARK), ctypes.c_long(0))
    if code != 0:
        sys.exit(f"ncnn's inference failed with {code}")


main()
