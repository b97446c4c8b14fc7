"""Autotuning: which of the choices that never change a result make a kernel fastest."""
