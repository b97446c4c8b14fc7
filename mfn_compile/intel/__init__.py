"""The OpenVINO backend."""

import mfn_compile.no_telemetry  # noqa: F401 - before openvino is imported anywhere
