"""Serves our integer network on this machine as runners/peer.py serves a peer's.

python -m mfn_compile.bench.ours QDQ.onnx PREPROCESSING_JSON PIXELS.npy
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from mfn_compile.arm.host import HostNetwork
from mfn_compile.arm.reader import read_graph
from mfn_compile.model.preprocessing import Preprocessing


def main(qdq: str, preprocessing: str, pixels: str) -> None:
    """A line "N" on standard input times N inferences of the first crop, one thread."""
    graph = read_graph(Path(qdq), Preprocessing.model_validate_json(preprocessing))
    network, image = HostNetwork(graph), np.load(pixels)[:1]
    network.embed(image)
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            network.embed(image)
        print((time.perf_counter() - start) / int(line), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
