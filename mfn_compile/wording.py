"""What a value of a user's file may be, in plain words instead of pydantic's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

LONGEST = 60  # characters of a value that is shown
# By the beginning of pydantic's name of the error.
KINDS = {
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "string_type": "text in quotes",
    "bool": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "model": "a table of keys and values",
    "dict": "a table of keys and values",
}
BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}
COUNTS = {
    "too_short": ("at least", "min_length"),
    "too_long": ("at most", "max_length"),
}


def wording(error: ErrorDetails) -> str:
    """Why pydantic refused a value, and what would be allowed: a sentence without its full stop."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return "it is missing"
    if kind == "extra_forbidden":
        return "there is no such key"
    if kind == "value_error":  # a check of our own
        return error["msg"].removeprefix("Value error, ")
    allowed = _allowed(kind, context)
    return f"it must be {allowed}, and is {_shown(error['input'])}" if allowed else error["msg"]


def _allowed(kind: str, context: Mapping[str, Any]) -> str:
    """What would be accepted; empty for a kind of error that has no words here."""
    if kind in BOUNDS:
        words, key = BOUNDS[kind]
        return f"{words} {context[key]}"
    if kind == "literal_error":
        return str(context["expected"])
    if kind == "string_pattern_mismatch":
        return f"of the form {context['pattern']}"
    if kind.removeprefix("string_") in COUNTS:
        words, key = COUNTS[kind.removeprefix("string_")]
        what = "characters" if kind.startswith("string_") else "entries"
        return f"{words} {context[key]} {what} long"
    return next((words for name, words in KINDS.items() if kind.startswith(name)), "")


def _shown(value: object) -> str:
    """A value as its file has it, shortened."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
