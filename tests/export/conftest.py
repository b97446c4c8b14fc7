from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """More threads than free cores make tiny networks many times slower."""
    torch.set_num_threads(1)
