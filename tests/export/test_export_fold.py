from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mfn_compile.export.fold import fold_batchnorm

from .networks import ACTIVATIONS, network


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("options", [{}, {"linear_bias": True}, {"linear_bn": False}])
def test_folded_network_computes_the_same(activation, options):
    original = network(activation=activation, **options)
    before = copy.deepcopy(original.state_dict())
    folded = fold_batchnorm(original)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert all(torch.equal(before[k], v) for k, v in original.state_dict().items())
    x = torch.randn(2, 3, 112, 112)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), original(x), rtol=1e-5, atol=1e-5)


def test_folded_network_trains():
    folded = fold_batchnorm(network())
    folded(torch.randn(1, 3, 112, 112)).square().sum().backward()
    assert all(p.grad is not None for p in folded.parameters())


def test_folding_twice_changes_nothing():
    once = fold_batchnorm(network())
    twice = fold_batchnorm(once)
    assert all(torch.equal(v, once.state_dict()[k]) for k, v in twice.state_dict().items())
