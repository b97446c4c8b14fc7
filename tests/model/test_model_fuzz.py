"""Damaged files end in a network or in BadInputError, never in another exception."""

from __future__ import annotations

import contextlib
import warnings

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from mfn_compile.errors import BadInputError
from mfn_compile.model.loader import load_checkpoint

from .replicas import Xiaoccer, randomize

FORMATS = ("zip.pt", "legacy.pt", "w.safetensors", "w.onnx")


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    replica = randomize(Xiaoccer(stages=((2, 8, 1, 2), (4, 8, 1, 2), (5, 8, 1, 2))))
    state = replica.state_dict()
    torch.save(state, folder / "zip.pt")
    torch.save(state, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    save_file(state, str(folder / "w.safetensors"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            replica, (torch.zeros(1, 3, 112, 96),), str(folder / "w.onnx"), dynamo=False
        )
    return folder


@pytest.mark.parametrize("name", FORMATS)
def test_originals_load(name, originals, tmp_path):
    path = tmp_path / name
    path.write_bytes((originals / name).read_bytes())
    assert load_checkpoint(path).info.macs > 0


@pytest.mark.parametrize("name", FORMATS)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damage_is_bad_input(name, originals, tmp_path, data):
    content = bytearray((originals / name).read_bytes())
    # headers and tables sit at both ends
    end = data.draw(st.sampled_from((60, 2000, len(content))))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, min(end, len(content)) - 1))
        content[place if data.draw(st.booleans()) else -1 - place] = data.draw(st.integers(0, 255))
    path = tmp_path / name
    path.write_bytes(content)
    with contextlib.suppress(BadInputError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load_checkpoint(path)
