"""A library of three variants: each CPU runs what it can, and every bit is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfn_compile.arm.firmware.linker import native_aarch64
from mfn_compile.device.real.programs import variants_of
from mfn_compile.resources import data_dir
from tests.arm.firmware import networks, stub
from tests.arm.firmware.networks import Made

MORE = """
[[code.variants]]
name = "i8mm"
cpu = "neoverse-n2"
features = ["neon", "dotprod", "i8mm"]
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("three")
    target = folder / "three.toml"
    target.write_text((data_dir("targets") / "arm64.toml").read_text() + MORE)
    return networks.make(networks.integer_network(), folder, str(target))


def test_every_cpu_ran_all_that_it_can(made: Made) -> None:
    if native_aarch64():
        pytest.skip("this machine runs AArch64 by itself")
    found = {row.cpu: row.variants for row in made.firmware.proofs}
    assert found == {
        "cortex-a53": ("neon",),
        "cortex-a76": ("neon", "dotprod"),
        "max": ("neon", "dotprod", "i8mm"),
    }


def test_dense_kernels_multiply_matrices(made: Made) -> None:
    rows = [row for row in made.firmware.census if row.variant == "i8mm"]
    dense = [row for row in rows if row.kind == "dense-int8"]
    assert dense
    assert all(row.matrix and not row.dot for row in dense)
    assert not any(row.matrix for row in made.firmware.census if row.variant != "i8mm")


def test_the_texts_name_the_third_variant(made: Made, tmp_path: Path) -> None:
    assert variants_of(made.bundle) == ("neon", "dotprod", "i8mm")
    assert "int mfn_has_i8mm(void);" in made.header
    assert "call `mfn_has_i8mm` at the start, and then `mfn_embed_i8mm` or" in made.readme
    board = Path(variants_of.__code__.co_filename).with_name("board.c")
    inputs = (f"-I{made.bundle / 'include'}", board, made.archive)
    marks = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-static")
    stub.succeed(stub.cross(), *marks, *inputs, "-o", tmp_path / "board")
