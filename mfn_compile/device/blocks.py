"""What blocks.c wrote: basic blocks with their counts, read back and joined."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mfn_compile.errors import DeviceError

WORD = 4
TITLE = "mfn-blocks 1"
TOLERANCE = 0.02  # counts that differ by less are equal: a loop may be left early now and then
LONGEST = 1500  # instructions of a joined block, about


@dataclass(frozen=True)
class Block:
    """Instructions that run one after the other, without a way in or out between them.

    Attributes:
        address: of the first instruction.
        count: how often the block ran; an average where blocks were joined.
        code: the instructions as they are in memory.
        l1, l2: misses of its loads and stores in these caches.
    """

    address: int
    count: float
    code: bytes
    l1: int = 0
    l2: int = 0

    @property
    def length(self) -> int:
        """Number of instructions."""
        return len(self.code) // WORD

    @property
    def end(self) -> int:
        """Address behind the last instruction."""
        return self.address + len(self.code)

    @property
    def instructions(self) -> float:
        """Instructions that ran."""
        return self.count * self.length

    @property
    def last_word(self) -> int:
        """Encoding of the last instruction."""
        return int.from_bytes(self.code[-WORD:], "little")

    @property
    def leaves(self) -> bool:
        """Whether the last instruction never goes on with the next: b, bl, br, blr or ret."""
        return (
            self.last_word & 0x7C000000 == 0x14000000 or self.last_word & 0xFE000000 == 0xD6000000
        )

    @property
    def called(self) -> int | None:
        """Address of the function that the last instruction calls, None if it is no bl."""
        if self.last_word & 0xFC000000 != 0x94000000:
            return None
        distance = self.last_word & 0x03FFFFFF
        distance -= (distance & 0x02000000) << 1
        return self.end - WORD + distance * WORD


@dataclass(frozen=True)
class Counts:
    """One region of a program's run: blocks by address, accesses of 64-byte lines, threads."""

    blocks: tuple[Block, ...]
    accesses: int
    threads: int


def read_counts(path: Path) -> Counts:
    """Read the plugin's file.

    Raises:
        DeviceError: it cannot be read, was cut off, or counts nothing or several threads.
    """
    try:
        counts = parse_counts(path.read_text(encoding="ascii"))
    except OSError as error:
        raise _wrong(path, error.strerror or str(error)) from error
    except ValueError as error:
        raise _wrong(path, f"it is damaged or cut off: {error}") from error
    if counts.threads > 1:
        raise DeviceError(
            "The program ran several threads, and counts are right for one only",
            why=f"{counts.threads} threads ran",
            hint="Limit the program to one thread",
        )
    if not counts.blocks:
        raise DeviceError(
            "Nothing was counted between the markers",
            hint="The region must be longer than one block, the first of which is left out",
        )
    return counts


def parse_counts(text: str) -> Counts:
    """Counts from the plugin's text.

    Raises:
        ValueError: it is not what the plugin writes, or not all of it.
    """
    title, numbers, *rows, last = text.splitlines() or [""]
    words = numbers.split()
    if title != TITLE or words[::2] != ["threads", "accesses"]:
        raise ValueError("the first lines are not the plugin's")
    if last.split() != ["end", str(len(rows))]:
        raise ValueError(f"the last line does not end {len(rows)} blocks")
    return Counts(tuple(sorted(map(_block, rows), key=_order)), int(words[3]), int(words[1]))


def _block(row: str) -> Block:
    address, count, l1, l2, code = row.split(" ")
    block = Block(int(address, 16), int(count), bytes.fromhex(code), int(l1), int(l2))
    if not block.code or len(block.code) % WORD or block.count < 1:
        raise ValueError(f"a block at 0x{address} has {len(block.code)} bytes")
    return block


def _order(block: Block) -> tuple[int, int]:
    return block.address, len(block.code)


def join(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Join blocks that follow each other and ran (nearly) equally often.

    QEMU splits code at pages, at branches that are never taken, and where a block becomes too
    long; a loop that is looked at in pieces seems to wait at every seam.
    """
    ordered = sorted(blocks, key=_order)
    waiting: dict[int, list[Block]] = defaultdict(list)
    for block in ordered:
        waiting[block.address].append(block)
    joined = []
    for block in ordered:
        if block in waiting[block.address]:  # else it is part of a joined one
            joined.append(_joined(_chain(block, waiting)))
    return tuple(joined)


def _chain(first: Block, waiting: dict[int, list[Block]]) -> list[Block]:
    """The block and all that continue it, which wait no longer."""
    chain: list[Block] = []
    following: Block | None = first
    length = 0
    while following is not None:
        waiting[following.address].remove(following)
        chain.append(following)
        length += following.length
        if following.leaves or length >= LONGEST:
            break
        others = waiting.get(following.end, [])
        following = next((b for b in others if _equally_often(first, b)), None)
    return chain


def _equally_often(one: Block, other: Block) -> bool:
    return abs(one.count - other.count) <= TOLERANCE * max(one.count, other.count)


def _joined(chain: Sequence[Block]) -> Block:
    if len(chain) == 1:
        return chain[0]
    length = sum(block.length for block in chain)
    return Block(
        address=chain[0].address,
        count=sum(block.instructions for block in chain) / length,
        code=b"".join(block.code for block in chain),
        l1=sum(block.l1 for block in chain),
        l2=sum(block.l2 for block in chain),
    )


def _wrong(path: Path, why: str) -> DeviceError:
    return DeviceError(
        "The counts of the virtual board cannot be read",
        where=str(path),
        why=why,
        hint="Run it again; check that the disk is not full",
    )
