"""Importing this keeps OpenVINO and NNCF from sending usage statistics.

OpenVINO starts a process that reports `import openvino` unless its telemetry package is missing; on
a machine without a network that process lingers, and it swallows Ctrl-C.
"""

from __future__ import annotations

import os
import sys

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if not installed
os.environ.setdefault("NNCF_CI", "1")  # NNCF's own switch, read when it is imported
