"""Layers that a recipe names: exact names or regular expressions over the float graph."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from mfn_compile.errors import BadInputError


def match_layers(patterns: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """Layers that a pattern equals or, as a regular expression, matches as a whole.

    Returns them in the order of `names`.

    Raises:
        BadInputError: a pattern matches nothing; the nearest layers are named.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        found = [name for name in names if name == pattern or re.fullmatch(pattern, name)]
        if not found:
            near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.3) or list(names[:3])
            raise BadInputError(
                f"No layer matches {pattern!r}",
                where="ptq.float_layers of the recipe",
                why="A pattern must match the whole name of a convolution",
                hint=f"Nearest layers: {', '.join(near)}",
            )
        chosen.update(found)
    return tuple(name for name in names if name in chosen)
