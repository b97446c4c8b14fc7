"""The version, in a file of its own so that the build and `--version` need no import."""

__version__ = "0.1.0"
