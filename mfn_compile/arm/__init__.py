"""The ARM backend: an integer graph of the QDQ file, its oracle, and kernels compiled by TVM."""
