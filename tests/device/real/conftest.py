"""Boards to measure on, and bundles for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.arm.firmware import stub
from tests.device.real.servers import Boards, tracker


@pytest.fixture
def boards() -> Iterator[Boards]:
    """A tracker without servers; those that the test starts end with it."""
    with tracker() as port:
        found = Boards(port)
        yield found
        found.stop()


@pytest.fixture(scope="session")
def host_board() -> Iterator[Boards]:
    """A tracker with one server of this machine, registered as "host"; tests leave it running."""
    with tracker() as port:
        found = Boards(port)
        try:
            found.start("host")
            yield found
        finally:
            found.stop()


@pytest.fixture(scope="session")
def host_stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose library runs on this machine; not to be changed."""
    return stub.build_host(tmp_path_factory.mktemp("host_stub"))
