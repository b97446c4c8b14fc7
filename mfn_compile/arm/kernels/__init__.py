"""Kernels in TensorIR: what each computes, and how it is scheduled for an instruction set."""
