from pathlib import Path

import pytest

from mfn_compile.device.real.answer import LARGEST, parse_answer
from mfn_compile.device.real.kept import Shelf
from mfn_compile.errors import DeviceError

GOOD = """mfn-board 1
machine aarch64
kernel 6.6.31
node pi
model Raspberry Pi 4 Model B
core 3
vectors 6
cpu.implementer 0x41
cpu.part 0xd08
dotprod 0
before.governor ondemand
before.kilohertz 1800000
before.millidegrees -4500
time 41000000
time 42000000
after.governor ondemand
end
"""


def test_a_good_answer_is_read() -> None:
    found = parse_answer(GOOD.encode(), "pi")
    assert (found.node, found.core, found.part, found.dotprod) == ("pi", 3, "0xd08", False)
    assert found.times_ns == (41_000_000, 42_000_000)
    assert (found.before.kilohertz, found.before.millidegrees) == (1_800_000, -4500)
    assert found.after.kilohertz is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"end\n",
        GOOD[:-5].encode(),
        GOOD.replace("mfn-board 1", "mfn-board 2").encode(),
        GOOD.replace("time 41000000", "time nan").encode(),
        GOOD.replace("time 41000000", "time -1").encode(),
        GOOD.replace("time 41000000", "time 99999999999999999999999").encode(),
        GOOD.replace("time 41000000", "time 0x10").encode(),
        GOOD.replace("core 3", "core -2").encode(),
        GOOD.replace("core 3", "core " + "9" * 14).encode(),
        GOOD.replace("core 3", "cores 3").encode(),
        GOOD.replace("vectors 6\n", "").encode(),
        GOOD.replace("time 41000000", "layers 1 2\nlayers 1").encode(),
        GOOD.replace("before.governor", "before.weather").encode(),
        GOOD.replace("before.governor", "between.governor").encode(),
        GOOD.replace("before.kilohertz 1800000", "before.kilohertz -5").encode(),
        GOOD.replace("machine aarch64", "\x00\xff\xfe").encode("latin-1"),
        b"mfn-board 1\n" + b"x" * LARGEST + b"\nend\n",
    ],
    ids=range(18),
)
def test_a_damaged_answer_is_an_error_that_names_the_board(content: bytes) -> None:
    with pytest.raises(DeviceError, match=r"damaged \(pi\)"):
        parse_answer(content, "pi")


def test_texts_of_a_board_are_plain_and_short_in_a_report() -> None:
    hostile = GOOD.replace("node pi", "node <script>\x1b[31m\u202e" + "a" * 500)
    found = parse_answer(hostile.encode(), "pi")
    assert len(found.node) == 100
    assert "\x1b" not in found.node
    assert found.node.isascii()


def test_answers_are_kept_and_damaged_or_foreign_ones_are_asked_again(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "answers")
    assert shelf.get("round-0") is None
    shelf.put("round-0", "pi", GOOD.encode())
    kept = shelf.get("round-0")
    assert kept is not None
    assert (kept.board, kept.answer.times_ns) == ("pi", (41_000_000, 42_000_000))
    path = tmp_path / "answers" / "round-0.json"
    for text in ("", "[]", '{"board": "pi"}', path.read_text()[:-40], '{"board":1,"content":2}'):
        path.write_text(text)
        assert shelf.get("round-0") is None
    with pytest.raises(DeviceError):
        shelf.put("round-1", "pi", b"nonsense")
    assert shelf.get("round-1") is None
    shelf.clear()
    assert not path.parent.exists()
