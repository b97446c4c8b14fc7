"""The static library: what binutils says about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfn_compile.arm.firmware.archive import make_archive
from mfn_compile.errors import InternalCheckError
from tests.arm.firmware import stub

MAIN = "int mfn_embed(const void *, float *, void *); int main(void) { return mfn_embed(0, 0, 0); }"
NAMES = [
    "mfn_embed",
    "mfn_embed_dotprod",
    "mfn_embed_neon",
    "mfn_embed_parallel",
    "mfn_embed_parallel_dotprod",
    "mfn_embed_parallel_neon",
    "mfn_embed_quantized",
    "mfn_embed_quantized_dotprod",
    "mfn_embed_quantized_neon",
    "mfn_has_dotprod",
]


def test_nm_reads_the_symbol_index(bundle: Path) -> None:
    listed = stub.succeed(stub.tool("nm"), "-s", bundle / "lib/libmfn.a")
    index = listed.split("Archive index:\n", 1)[1].split("\n\n", 1)[0].splitlines()
    assert sorted(line.split(" in ")[0] for line in index) == NAMES
    assert "mfn_embed_neon in mfn_neon.o" in index
    assert "mfn_embed in mfn_dispatcher_of_variants.o" in index


def test_ar_lists_and_extracts_the_members(bundle: Path, tmp_path: Path) -> None:
    archive = bundle / "lib/libmfn.a"
    listed = stub.succeed(stub.tool("ar"), "tv", archive)
    assert listed.count("rw-r--r-- 0/0") == 3
    assert listed.count("Jan  1 00:00 1970") == 3
    stub.succeed("ar", "x", archive, cwd=tmp_path)
    again = tmp_path / "again"
    again.mkdir()
    for name, content in stub.objects(again).items():
        assert (tmp_path / name).read_bytes() == content


def test_a_program_links_without_ranlib(bundle: Path, tmp_path: Path) -> None:
    source = tmp_path / "main.c"
    source.write_text(MAIN)
    stub.succeed(
        stub.cross(), "-static", source, bundle / "lib/libmfn.a", "-o", tmp_path / "program"
    )
    done = stub.run(*stub.emulate(tmp_path / "program"))
    assert done.returncode == 1


def test_the_same_objects_give_the_same_bytes_as_binutils(tmp_path: Path) -> None:
    objects = stub.objects(tmp_path)
    first = make_archive(objects)
    assert make_archive(dict(objects)) == first
    stub.succeed(stub.tool("ar"), "rcsD", "reference.a", *objects, cwd=tmp_path)
    assert (tmp_path / "reference.a").read_bytes() == first


def test_odd_sizes_are_padded(tmp_path: Path) -> None:
    # Bytes behind the section headers belong to nothing.
    objects = {
        f"{name}.o": stub.compile_c(tmp_path, name, f"int mfn_{name}(void) {{ return 1; }}") + b"x"
        for name in ("a", "b")
    }
    (tmp_path / "odd.a").write_bytes(make_archive(objects))
    assert stub.succeed(stub.tool("ar"), "t", tmp_path / "odd.a").split() == ["a.o", "b.o"]
    assert "mfn_b in b.o" in stub.succeed("nm", "-s", tmp_path / "odd.a")


def test_a_symbol_of_two_objects_is_refused(tmp_path: Path) -> None:
    content = stub.compile_c(tmp_path, "a", "int mfn_same(void) { return 1; }")
    with pytest.raises(InternalCheckError, match=r"mfn_same is in a\.o and in b\.o"):
        make_archive({"a.o": content, "b.o": content})


@pytest.mark.parametrize("name", ["", "a/b.o", "neu\n.o", "größe.o"])
def test_a_name_that_ar_cannot_hold_is_refused(tmp_path: Path, name: str) -> None:
    content = stub.compile_c(tmp_path, "a", "int mfn_a(void) { return 1; }")
    with pytest.raises(InternalCheckError, match="cannot be a member's name"):
        make_archive({name: content})


def test_no_objects_and_no_elf_are_refused() -> None:
    with pytest.raises(InternalCheckError, match="empty"):
        make_archive({})
    with pytest.raises(InternalCheckError, match="cannot be read as ELF"):
        make_archive({"a.o": b"text"})
