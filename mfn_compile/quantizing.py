"""The quantize stage of a run: what its key is made of, and how the quantizer is called."""

from __future__ import annotations

from pathlib import Path

from mfn_compile.material import Material
from mfn_compile.progress import Progress
from mfn_compile.recipe import Recipe
from mfn_compile.results import ExportResult, QuantizeResult
from mfn_compile.stages import QUANTIZE, Checkpoint
from mfn_compile.store import Store, Stored
