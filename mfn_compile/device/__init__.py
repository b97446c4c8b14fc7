"""The virtual board: AArch64 programs run under QEMU, their cycles come from models of cores."""
