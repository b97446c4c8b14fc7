"""Counts are read back whole, and joining loses nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfn_compile.device.blocks import TOLERANCE, Block, join, parse_counts, read_counts
from mfn_compile.errors import DeviceError

NOP = bytes.fromhex("1f2003d5")
RET = bytes.fromhex("c0035fd6")
BACK = bytes.fromhex("e0ffff17")  # b
TEXT = "mfn-blocks 1\nthreads 1 accesses 9\n400010 7 3 1 1f2003d5\n400000 2 0 0 1f2003d5\nend 2\n"


def test_counts_are_read_in_the_order_of_addresses() -> None:
    counts = parse_counts(TEXT)
    assert counts.blocks == (Block(0x400000, 2, NOP), Block(0x400010, 7, NOP, 3, 1))
    assert (counts.accesses, counts.threads) == (9, 1)


@pytest.mark.parametrize("end", range(len(TEXT) - 1))
def test_a_file_that_was_cut_off_is_refused(end: int) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_counts(TEXT[:end])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("mfn-blocks 1", "mfn-blocks 2"),
        ("400010 7", "zz 7"),
        (" 1f2003d5\nend", " 1f2003\nend"),
        (" 7 ", " 0 "),
    ],
)
def test_a_damaged_file_is_an_error_with_its_name(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "blocks.txt"
    path.write_text(TEXT.replace(old, new))
    with pytest.raises(DeviceError, match=r"blocks\.txt"):
        read_counts(path)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="No such file"):
        read_counts(tmp_path / "none")


def test_several_threads_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "blocks.txt"
    path.write_text(TEXT.replace("threads 1", "threads 3"))
    with pytest.raises(DeviceError, match="3 threads"):
        read_counts(path)


def test_a_loop_in_pieces_becomes_whole() -> None:
    pieces = [Block(0, 100, NOP * 2, 1, 1), Block(8, 99, NOP, 2, 0), Block(12, 100, NOP * 3, 3, 2)]
    (whole,) = join(pieces)
    assert whole == Block(0, (200 + 99 + 300) / 6, NOP * 6, 6, 3)


@pytest.mark.parametrize("last", [RET, BACK])
def test_nothing_is_joined_behind_a_jump(last: bytes) -> None:
    assert len(join([Block(0, 5, NOP + last), Block(8, 5, NOP)])) == 2


def test_other_counts_are_not_joined() -> None:
    assert len(join([Block(0, 100, NOP), Block(4, 97, NOP)])) == 2
    assert len(join([Block(0, 100, NOP), Block(4, 98, NOP)])) == 1


def test_of_blocks_at_one_address_the_one_with_this_count_continues() -> None:
    rare, often = Block(4, 3, NOP), Block(4, 50, NOP * 2)
    joined = join([Block(0, 50, NOP), rare, often])
    assert set(joined) == {rare, Block(0, 50, NOP * 3)}


def test_a_call_names_its_target() -> None:
    ahead, back = bytes.fromhex("04000094"), bytes.fromhex("ffffff97")  # bl +16, bl -4
    assert Block(0x1000, 1, NOP + ahead).called == 0x1014
    assert Block(0x1000, 1, NOP + back).called == 0x1000
    assert Block(0x1000, 1, NOP + RET).called is None


@st.composite
def runs(draw: st.DrawFn) -> list[Block]:
    blocks, address = [], 0x400000
    for _ in range(draw(st.integers(0, 12))):
        code = NOP * draw(st.integers(1, 4)) + draw(st.sampled_from([b"", b"", RET, BACK]))
        count = draw(st.sampled_from([1, 49, 50, 1000]))
        blocks.append(Block(address, count, code, draw(st.integers(0, 9)), draw(st.integers(0, 9))))
        address += draw(st.sampled_from([len(code), len(code), 4, len(code) + 64]))
    return list({(b.address, b.code): b for b in blocks}.values())


@given(runs())
def test_joining_keeps_instructions_and_misses(blocks: list[Block]) -> None:
    joined = join(blocks)
    assert sum(b.instructions for b in joined) == pytest.approx(sum(b.instructions for b in blocks))
    assert sum(b.l1 for b in joined) == sum(b.l1 for b in blocks)
    assert sum(b.l2 for b in joined) == sum(b.l2 for b in blocks)
    assert join(list(reversed(blocks))) == joined
    for block in joined:  # its parts ran about as often
        parts = [b for b in blocks if block.address <= b.address < block.end]
        assert any(abs(b.count - block.count) <= TOLERANCE * b.count for b in parts)
