"""A tiny MobileFaceNet that every stage can take in a second."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from mfn_compile.model.network import (
    Activation,
    BottleneckSpec,
    MobileFaceNet,
    MobileFaceNetConfig,
)


def tiny_config(
    activation: Activation = Activation.PRELU, size: int = 32, embedding: int = 16
) -> MobileFaceNetConfig:
    """Seventeen convolutions; the last block adds its input."""
    blocks = (
        BottleneckSpec(8, 16, 8, 2, residual=False),
        BottleneckSpec(8, 16, 16, 2, residual=False),
        BottleneckSpec(16, 32, 16, 2, residual=False),
        BottleneckSpec(16, 32, 16, 1, residual=True),
    )
    return MobileFaceNetConfig(
        height=size, width=size, activation=activation, depthwise_activation=activation,
        stem_width=8, blocks=blocks, head_width=32,
        embedding_width=embedding,
    )  # fmt: skip


def tiny_checkpoint(path: Path, seed: int = 0, size: int = 112) -> Path:
    """A random network with live BatchNorm statistics, in our own layout."""
    torch.manual_seed(seed)
    network = MobileFaceNet(tiny_config(size=size))
    network.train()
    with torch.no_grad():
        for _ in range(20):
            network(torch.randn(8, 3, size, size))
    state = {k: v for k, v in network.state_dict().items() if "num_batches" not in k}
    shape = {"color": "RGB", "mean": [127.5] * 3, "std": [128.0] * 3}
    save_file(state, path, metadata={"preprocessing": json.dumps(shape), "strides": "[2, 2, 2, 1]"})
    return path
