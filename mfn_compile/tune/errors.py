"""What can go wrong while kernels are tuned, and with the files that tuning leaves."""

from __future__ import annotations

from mfn_compile.errors import BadInputError, DeviceError, InternalCheckError


class FirstFailedError(InternalCheckError):
    """The hand-chosen knobs of a kernel failed, so there is nothing to fall back to."""


class TuningFolderError(BadInputError):
    """A folder's log is damaged, or is of another target, code or knob space."""


class FolderBusyError(DeviceError):
    """Another process is tuning in the same folder."""
