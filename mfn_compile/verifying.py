"""`mfn-compile verify`: a bundle's files are whole, and its library computes its golden vectors."""

from __future__ import annotations

from pathlib import Path

from mfn_compile.bundle.manifest import read_manifest, verify_bundle
from mfn_compile.frozen import Frozen
from mfn_compile.progress import Progress
from mfn_compile.results import CpuProof

PROGRAM = "verify.c"  # a bundle with a library for firmware has it


class Verified(Frozen):
    """What was proven of a bundle."""

    bundle: str
    target: str
    files: int
    proofs: tuple[CpuProof, ...] = ()

    def lines(self) -> str:
        """For the console."""
        rows = [f"{self.files} files are what the manifest says"]
        rows += [
            f"{proof.cpu}{' (emulated)' if proof.emulated else ''}: {proof.vectors} golden vectors "
            f"on {' and '.join(proof.variants)}, every bit right"
            for proof in self.proofs
        ]
        return "\n".join(rows)


def verify(bundle: Path, progress: Progress) -> Verified:
    """Check a bundle's files; build its proof program and run it where it holds a library.

    The program and the library are the bundle's own code: verify bundles that you trust.

    Raises:
        BadInputError: the folder is not a bundle.
        InternalCheckError: a file differs from the manifest, or a bit from the oracle.
        DeviceError: there is nothing to build or run the program with.
    """
    verify_bundle(bundle)
    manifest = read_manifest(bundle)
    progress.note(f"{len(manifest.files)} files are what the manifest says")
    proofs: tuple[CpuProof, ...] = ()
    if any(entry.name == PROGRAM for entry in manifest.files):
        from mfn_compile.arm.firmware.proof import prove, summary  # noqa: PLC0415 - only for it

        proofs = summary(prove(bundle, progress))
    return Verified(
        bundle=str(bundle), target=manifest.target, files=len(manifest.files), proofs=proofs
    )
