"""A virtual board as a device of the pipeline: a profile, and the time that it stands for."""

from __future__ import annotations

from pathlib import Path

from mfn_compile.arm.firmware.facts import Variant
from mfn_compile.device.profile import Profile, best_variant, profile
from mfn_compile.device.runner import RUN_SECONDS
from mfn_compile.device.spec import VIRTUAL, VirtualDevice
from mfn_compile.device.tools import of_virtual, require_all
from mfn_compile.device_result import DeviceResult, Peaks

SEEN_EARLIER = (
    "The times that {title} was calibrated with had been seen when rules of the model were chosen: "
    "its interval is a fit, not a test."
)
UNCALIBRATED = "{title} was never calibrated, so its modelled cycles are no time."


def ready(device: VirtualDevice) -> None:
    """Check that the device's tools are here.

    Raises:
        DeviceError: some are missing; the message names their packages.
    """
    require_all(of_virtual(device))


def run_virtual(
    place: Path,
    device: VirtualDevice,
    variant: Variant | None = None,
    *,
    cache: Path | None = None,
    seconds: float = RUN_SECONDS,
) -> DeviceResult:
    """One inference of a bundle on a virtual board.

    Args:
        place: the bundle's folder, or the libmfn.a in one.
        device: from `spec.parse_virtual`.
        variant: None takes the fastest that the bundle has and the core runs.
        cache: folder for what is computed once; by default the user's.
        seconds: after which the program is stopped.

    Raises:
        BadInputError: the bundle lacks a file or the variant, or the core cannot run it.
        DeviceError: a tool is missing or failed, or the program crashed or did not end.
    """
    chosen = variant or best_variant(place, device.core)
    return of_profile(profile(place, device.core, chosen, cache=cache, seconds=seconds), device)


def of_profile(found: Profile, device: VirtualDevice) -> DeviceResult:
    """What a profile means on the device."""
    core = device.core
    return DeviceResult(
        device=f"{VIRTUAL}{device.name}",
        kind="modelled",
        title=device.title,
        core=core.name,
        clock_ghz=None if device.entry is None else device.entry.clock_ghz,
        variant=found.variant,
        model=found.model,
        cycles=found.cycles,
        instructions=found.instructions,
        accesses=found.accesses,
        l1_misses=found.l1_misses,
        l2_misses=found.l2_misses,
        macs=found.macs,
        macs_per_cycle=found.macs_per_cycle,
        milliseconds=device.milliseconds(found.cycles),
        peaks=Peaks(
            macs_per_cycle=core.peak(found.variant),
            l2_bytes_per_cycle=core.transfer.l2,
            memory_bytes_per_cycle=core.transfer.memory,
        ),
        kernels=found.kernels,
        warnings=_warnings(device),
    )


def _warnings(device: VirtualDevice) -> tuple[str, ...]:
    if device.board is None or device.entry is None:
        return ()
    title = device.board.title
    if device.entry.calibration is None:
        return (UNCALIBRATED.format(title=title),)
    return (SEEN_EARLIER.format(title=title),) if device.entry.calibration.fitted else ()
