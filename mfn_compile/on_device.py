"""The device that a run for ARM is timed on: chosen from --device, asked, and its answer stored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mfn_compile.arm.firmware.facts import Variant
from mfn_compile.bundle.manifest import verify_bundle
from mfn_compile.device.spec import (
    FORMS,
    LOCAL,
    RPC,
    VIRTUAL,
    VirtualDevice,
    parse_virtual,
    target_device,
)
from mfn_compile.device_result import DeviceResult
from mfn_compile.errors import DeviceError, UsageError
from mfn_compile.hashing import file_sha256
from mfn_compile.progress import Progress
from mfn_compile.store import Stage, Store, default_root
from mfn_compile.target import Target

if TYPE_CHECKING:
    from mfn_compile.device.real.measure import LayerSource
    from mfn_compile.device.tools import Look

NONE = "none"
CODE = ("device", "device_result", "boards")
LIBRARY = "lib/libmfn.a"


@dataclass(frozen=True)
class Device:
    """What to time on.

    Attributes:
        text: as it was asked for.
        virtual: of a virtual one, its core and board; None for a board that is there.
        asked: False where the target brought it along; then missing tools are no error.
    """

    text: str
    virtual: VirtualDevice | None
    asked: bool


def choose(text: str | None, target: Target, target_place: str) -> Device | None:
    """The device of a run; None where the artifact is timed on this machine, or not at all.

    Args:
        text: the option --device, None where it was left out.
        target_place: name or path that the target was given by.

    Raises:
        UsageError: the text is no device, or none for the target's backend.
        BadInputError: no such core or board, or a core without a model.
    """
    if target.code is None:
        if text not in (None, LOCAL):
            raise UsageError(
                f"--device {text} does not run code for {target.name!r}",
                why="its artifact is timed on this machine",
                hint="Leave --device out, or choose an ARM target",
            )
        return None
    asked = text is not None
    found = text if asked else target_device(target, target_place)
    return None if found in (None, NONE) else parse(str(found), asked=asked)


def parse(text: str, *, asked: bool = True) -> Device:
    """The device of a text.

    Raises:
        UsageError: it has none of the forms.
        BadInputError: no such core or board, or a core without a model.
    """
    if text.startswith(VIRTUAL):
        return Device(text, parse_virtual(text), asked)
    if text.startswith(RPC):
        from mfn_compile.device.real.measure import RpcAddress  # noqa: PLC0415 - only for it

        RpcAddress.parse(text)
        return Device(text, None, asked)
    if text == LOCAL:
        return Device(text, None, asked)
    if text == NONE:
        raise UsageError("There is nothing to profile on no device", hint=f"Write {FORMS}")
    raise UsageError(f"{text!r} is no device", hint=f"Write {FORMS}")


def looks_of(device: Device) -> tuple[Look, ...]:
    """For the outside tools that a device needs."""
    from mfn_compile.device.tools import of_virtual, require_cross_compiler  # noqa: PLC0415

    return (require_cross_compiler,) if device.virtual is None else of_virtual(device.virtual)


def unready(device: Device) -> str:
    """Why a device that nobody asked for is left out; empty where it can be used.

    Raises:
        DeviceError: it was asked for, and tools are missing.
    """
    if device.virtual is None:
        return ""
    from mfn_compile.device.virtual import ready  # noqa: PLC0415 - only for it

    try:
        ready(device.virtual)
    except DeviceError as error:
        if device.asked:
            raise
        return f"No latency was modelled. {error.paragraph()}"
    return ""


def time_on(
    device: Device,
    bundle: Path,
    store: Store,
    progress: Progress,
    *,
    seconds: float,
    layers: LayerSource | None = None,
) -> DeviceResult:
    """One inference of the artifact in `bundle` on the device.

    A modelled answer is stored; a board is asked anew each time, and what it had already
    answered when it was lost is not asked again.

    Args:
        layers: what a board's kernels are timed with; None looks for it in the bundle.

    Raises:
        BadInputError: the core cannot run the library.
        DeviceError: a tool or the board is missing or failed, or did not answer in time.
        InternalCheckError: the board computes other bits than the golden vectors.
    """
    if device.virtual is not None:
        return _modelled(device.virtual, bundle, store, progress, seconds)
    from mfn_compile.device.measured import measure  # noqa: PLC0415 - only for it

    found = measure(
        device.text,
        bundle,
        layers,
        resume=store.root / "boards",
        progress=progress,
        seconds=seconds,
    )
    return _with_traffic(found, bundle, store, progress, seconds)


def _with_traffic(
    found: DeviceResult, bundle: Path, store: Store, progress: Progress, seconds: float
) -> DeviceResult:
    """Add what only a virtual board tells, where the core has a model and its tools are here."""
    if found.core is None or not found.kernels:
        return found
    from mfn_compile.device.measured import with_traffic  # noqa: PLC0415 - only for it

    same = Device(f"{VIRTUAL}{found.core}", parse_virtual(f"{VIRTUAL}{found.core}"), asked=False)
    if same.virtual is None or unready(same):
        return found
    return with_traffic(found, _modelled(same.virtual, bundle, store, progress, seconds))


def profile_on(
    device: Device,
    bundle: Path,
    variant: Variant | None,
    *,
    cache_dir: Path | None,
    progress: Progress,
    seconds: float,
) -> DeviceResult:
    """One inference of a finished bundle on the device.

    Args:
        variant: which code to run on a virtual device; None takes the fastest.

    Raises:
        UsageError: a board was asked for a variant; the library chooses there.
        BadInputError: the folder is no bundle, or the core cannot run the variant.
        DeviceError: a tool or the board is missing or failed, or did not answer in time.
        InternalCheckError: the bundle's files are not what its manifest says.
    """
    from mfn_compile.device.runner import open_bundle  # noqa: PLC0415 - only for it
    from mfn_compile.device.tools import require_all  # noqa: PLC0415

    open_bundle(bundle)
    if bundle.is_dir():  # a library may also be given alone
        verify_bundle(bundle)
    require_all(looks_of(device))
    root = cache_dir or default_root()
    if device.virtual is not None:
        from mfn_compile.device.virtual import run_virtual  # noqa: PLC0415 - only for it

        with progress.task(f"running on the virtual board, {device.virtual.title}", 1) as task:
            place = root.absolute() / "virtual-board"
            found = run_virtual(bundle, device.virtual, variant, cache=place, seconds=seconds)
            task.advance()
        return found
    if variant is not None:
        raise UsageError(
            f"--variant {variant} is for virtual devices",
            why="on a board the library chooses by the CPU",
            hint="Leave it out",
        )
    return time_on(device, bundle, Store(root, progress.note), progress, seconds=seconds)


def _modelled(
    device: VirtualDevice, bundle: Path, store: Store, progress: Progress, seconds: float
) -> DeviceResult:
    from mfn_compile.device.costs import model_of  # noqa: PLC0415 - only for it
    from mfn_compile.device.virtual import run_virtual  # noqa: PLC0415

    inputs = {
        "library": file_sha256(bundle / LIBRARY),
        "core": device.core.model_dump(mode="json"),
        "entry": None if device.entry is None else device.entry.model_dump(mode="json"),
        "title": device.title,
        "name": device.name,
        "model": model_of(device.core).identity,
    }

    def run(folder: Path) -> DeviceResult:
        with progress.task(f"running on the virtual board, {device.title}", 1) as task:
            found = run_virtual(bundle, device, seconds=seconds)
            task.advance()
        return found

    return store.run(Stage("device", DeviceResult, CODE), inputs, run).result
