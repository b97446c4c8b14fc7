"""Small networks of the family with random weights and statistics."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from mfn_compile.model.loader import LoadedModel
from mfn_compile.model.network import (
    Activation,
    MobileFaceNet,
    MobileFaceNetConfig,
    bottlenecks,
)
from mfn_compile.model.preprocessing import Preprocessing
from mfn_compile.results import CheckpointInfo

ACTIVATIONS = (Activation.PRELU, Activation.RELU, Activation.RELU6)
STAGES = ((2, 8, 2, 2), (4, 16, 1, 2), (2, 16, 2, 1), (4, 16, 1, 2))


def network(activation=Activation.PRELU, seed=0, **options) -> MobileFaceNet:
    torch.manual_seed(seed)
    fields = {"head_width": 24, "embedding_width": 12} | options
    config = MobileFaceNetConfig(
        activation=activation,
        depthwise_activation=activation,
        stem_width=8,
        blocks=bottlenecks(STAGES, 8),
        **fields,
    )
    module = MobileFaceNet(config)
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.uniform_(m.bias, -0.3, 0.3)
            m.running_mean.uniform_(-0.3, 0.3)
            m.running_var.uniform_(0.2, 0.6)
        elif isinstance(m, nn.PReLU):
            nn.init.uniform_(m.weight, -0.2, 0.6)
    return module.eval()


def loaded(module: MobileFaceNet | None, onnx_path: Path | None = None) -> LoadedModel:
    """What the loader would return, without a file."""
    config = module.config if module else MobileFaceNetConfig()
    info = CheckpointInfo(
        name="small",
        sha256="0" * 64,
        layout="mfn-compile",
        parameters=1,
        macs=1,
        embedding_width=config.embedding_width,
        activations=("prelu",),
        preprocessing=Preprocessing(
            height=config.height, width=config.width, mean=(127.5,) * 3, std=(128,) * 3
        ),
    )
    return LoadedModel(info, module, onnx_path)
