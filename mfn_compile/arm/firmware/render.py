"""Header, build files, programs and README of a firmware bundle."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from mfn_compile.arm.firmware.facts import ALIGNMENT, FirmwareFacts

# One file in the bundle, so that a command line names one.
VERIFY = ("state", "variants", "golden", "calls", "refusals", "threads", "program")
# Path in the bundle: templates, one behind the other. Those without .j2 are copied as they are.
TEMPLATES = {
    "include/mfn.h": ("mfn.h.j2",),
    "lib/pkgconfig/mfn.pc": ("mfn.pc.j2",),
    "lib/cmake/mfn/mfnConfig.cmake": ("mfnConfig.cmake.j2",),
    "lib/cmake/mfn/mfnConfigVersion.cmake": ("mfnConfigVersion.cmake.j2",),
    "verify.c": tuple(f"verify/{part}.c" for part in VERIFY),
    "example.c": ("example.c",),
    "parallel.c": ("parallel.c",),
    "README.md": ("README.md.j2",),
}
NEEDS = {
    "neon": "every 64-bit ARM CPU with NEON",
    "dotprod": "CPUs with dot products (FEAT_DotProd)",
    "i8mm": "CPUs with int8 matrix products (FEAT_I8MM)",
}


def render(facts: FirmwareFacts) -> dict[str, bytes]:
    """The texts of the bundle by their path in it."""
    # Plain text and C: nothing here is HTML. `plain` keeps names of the user's out of the syntax.
    environment = Environment(
        loader=PackageLoader("mfn_compile.arm.firmware"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["plain"] = _plain
    values = {
        "facts": facts,
        "alignment": ALIGNMENT,
        "needs": NEEDS,
        "numbers": _numbers,
        "external": sorted({name for row in facts.stack for name in row.external}),
    }
    return {
        path: b"".join(_text(environment, name, values) for name in names)
        for path, names in TEMPLATES.items()
    }


def _text(environment: Environment, name: str, values: dict[str, object]) -> bytes:
    if name.endswith(".j2"):
        return environment.get_template(name).render(values).encode()
    loader = environment.loader
    assert loader is not None
    return loader.get_source(environment, name)[0].encode()


def _plain(text: str) -> str:
    """One line without what ends a C remark or means something in Markdown tables or CMake."""
    kept = (char if char.isprintable() and char not in '`|<>"\\$' else " " for char in text)
    return " ".join("".join(kept).replace("*/", "* /").replace("/*", "/ *").split()).rstrip(".")


def _numbers(values: Sequence[float]) -> str:
    """One number where all are the same, else a list."""
    texts = [f"{value:g}" for value in values]
    return texts[0] if len(set(texts)) == 1 else f"({', '.join(texts)})"
