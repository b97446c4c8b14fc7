"""The modules beside tools/calibrate_virtual_boards.py, which are no package."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

TOOLS = Path(__file__).parents[2] / "tools"


def tool_module(name: str) -> ModuleType:
    """Import tools/NAME.py as the tools import each other."""
    if str(TOOLS) not in sys.path:
        sys.path.append(str(TOOLS))
    return importlib.import_module(name)
