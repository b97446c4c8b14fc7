"""The outside tools of a run: looked for before its work begins, and named together if missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from mfn_compile.arm.firmware.linker import INSTALL, Compiler, find_compiler
from mfn_compile.device.costs import model_of
from mfn_compile.device.emulator import require_emulator, require_host_compiler
from mfn_compile.device.spec import VirtualDevice
from mfn_compile.errors import DeviceError

Look = Callable[[], object]  # raises DeviceError where its tool is missing
APT = "sudo apt install "


def require_cross_compiler() -> Compiler:
    """A C compiler for AArch64.

    Raises:
        DeviceError: there is none.
    """
    compiler = find_compiler()
    if compiler is None:
        raise DeviceError(
            "A C compiler for AArch64 is missing",
            why="the program around the library is built here",
            hint=f"Install it: {INSTALL}",
        )
    return compiler


def of_virtual(device: VirtualDevice, *, library: bool = True) -> tuple[Look, ...]:
    """What a virtual device needs.

    Args:
        library: it runs a library of ours, which a program is linked around.
    """
    ours: tuple[Look, ...] = (require_cross_compiler,) if library else ()
    return (require_emulator, require_host_compiler, *ours, partial(model_of, device.core))


def require_all(looks: Iterable[Look]) -> None:
    """Look for every tool.

    Raises:
        DeviceError: names all that are missing, and one command that installs them.
    """
    missing: dict[str, DeviceError] = {}
    for look in looks:
        try:
            look()
        except DeviceError as error:
            missing.setdefault(error.paragraph(), error)
    errors = list(missing.values())
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise DeviceError(
            f"{len(errors)} tools are missing or do not fit",
            why="; ".join(_what(error) for error in errors),
            hint=_hint(error.hint for error in errors),
        )


def _what(error: DeviceError) -> str:
    place = f" ({error.where})" if error.where else ""
    return f"{error.what}{place}" + (f": {error.why}" if error.why else "")


def _hint(hints: Iterable[str]) -> str:
    """All hints, with the packages of those that name some in one command."""
    packages: dict[str, None] = {}
    others: dict[str, None] = {}
    for hint in hints:
        _, apt, names = hint.partition(APT)
        names, _, rest = names.partition(";")
        packages |= dict.fromkeys(names.split())
        if rest := rest.strip() if apt else hint:
            others[rest] = None
    command = [f"Install them: {APT}{' '.join(packages)}"] if packages else []
    return "; ".join([*command, *others])
