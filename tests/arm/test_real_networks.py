"""The published checkpoints, quantized with a few images: one file, for making them takes long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mfn_compile.arm import oracle
from mfn_compile.arm.codegen import compile_network
from mfn_compile.arm.host import HostNetwork
from tests.arm import emulated
from tests.arm.conftest import Quantized
from tests.arm.graphs import assert_same, images
from tests.arm.test_constant_channels import bits, check
from tests.arm.test_network import CPUS, assert_network

pytestmark = [pytest.mark.data, pytest.mark.slow]

Array = NDArray[Any]
FACES, RANDOM = 16, 16
EMULATED_FACES, EMULATED_RANDOM = 2, 2


def mixed(real: Quantized, faces: int, random: int) -> Array:
    return np.concatenate([real.faces[:faces], images(real.graph, random)])


def test_real_networks_equal_the_oracle(real: Quantized) -> None:
    assert_network(real.graph, mixed(real, FACES, RANDOM))


@pytest.mark.parametrize("cpu", CPUS)
def test_real_networks_under_emulation(cpu: str, real: Quantized, tmp_path: Path) -> None:
    emulated.need_emulator()
    graph, rgb = real.graph, mixed(real, EMULATED_FACES, EMULATED_RANDOM)
    kept = compile_network(graph, CPUS[cpu], suffix="_all", overlap=False)
    jobs = [
        emulated.Job(kept, rgb, keep=True),
        emulated.Job(compile_network(graph, CPUS[cpu]), rgb),
    ]
    every, dense = emulated.run(emulated.build(jobs, tmp_path), jobs, cpu)
    for image, found, one, two in zip(
        rgb, every.tensors, every.embeddings, dense.embeddings, strict=True
    ):
        wanted = oracle.run(graph, image)
        assert_same(graph, found, wanted)
        for embedding in (one, two):
            assert np.array_equal(embedding, wanted[graph.output].ravel())


def test_real_networks_keep_their_embeddings(real: Quantized) -> None:
    rgb = np.concatenate([real.faces[:4], images(real.graph, 4)])
    smaller = check(real.graph, rgb[2:6])
    found = HostNetwork(smaller).embed(rgb)
    assert np.array_equal(bits(found), bits(HostNetwork(real.graph).embed(rgb)))
