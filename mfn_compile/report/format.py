"""How numbers look: shared by the HTML report and the console, so that both say the same."""

from __future__ import annotations

ABSENT = "-"
MIN_P = 0.001  # smaller p values are shown as "< 0.001"


def fixed(value: float, digits: int) -> str:
    """`value` with `digits` decimals and thousands separators; never a negative zero."""
    text = f"{value:,.{digits}f}"
    return text.lstrip("-") if float(text.replace(",", "")) == 0 else text


def signed(value: float, digits: int) -> str:
    """Like `fixed`, with a plus sign in front of what is above zero."""
    text = fixed(value, digits)
    return f"+{text}" if value > 0 and float(text.replace(",", "")) != 0 else text


def count(value: int) -> str:
    """An integer with thousands separators."""
    return f"{value:,}"


def percent(value: float, spread: float | None = None) -> str:
    """A percentage, with its deviation where there is one."""
    return f"{fixed(value, 2)} %" + ("" if spread is None else f" ± {fixed(spread, 2)}")


def points(value: float) -> str:
    """A difference of percentages, signed; three decimals, for one LFW pair is 0.017 points."""
    return signed(value, 3)


def drop(value: float) -> str:
    """An accuracy loss in points; negative where INT8 is the better one."""
    return f"{fixed(value, 3)} points"


def cosine(value: float) -> str:
    """A cosine similarity near one."""
    return fixed(value, 5)


def milliseconds(value: float) -> str:
    """A time of one image: three significant digits below ten, two decimals above."""
    return f"{fixed(value, 3 if abs(value) < 1 else 2)} ms"


def ratio(value: float) -> str:
    """How many times faster or smaller."""
    return f"{fixed(value, 2)}x"


def decibels(value: float) -> str:
    """A signal-to-noise ratio."""
    return f"{fixed(value, 1)} dB"


def size(value: int) -> str:
    """Bytes in decimal units, and exactly."""
    if value < 1000:
        return f"{value} bytes"
    return f"{short_size(value)} ({count(value)} bytes)"


def short_size(value: int) -> str:
    """Bytes in decimal units, rounded."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if value >= scale:
            return f"{fixed(value / scale, 2)} {unit}"
    return f"{value} bytes"


def p_value(value: float) -> str:
    """A probability, not pretending to more digits than it deserves."""
    return f"< {MIN_P:g}" if value < MIN_P else fixed(value, 3)


def plural(number: int, one: str, many: str | None = None) -> str:
    """`3 images`, `1 image`."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"
