"""Where candidates run: a core of the virtual board, or the boards behind a tracker of TVM's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from mfn_compile import environment
from mfn_compile.device.real.address import RpcAddress
from mfn_compile.device.spec import VIRTUAL, VirtualDevice
from mfn_compile.device.tools import Look, of_virtual, require_cross_compiler
from mfn_compile.device_result import Milliseconds
from mfn_compile.records import Records, Unit

if TYPE_CHECKING:
    from mfn_compile.arm.graph import IntegerGraph
    from mfn_compile.device.real.programs import LayerSource
    from mfn_compile.tune.measure import NetworkMeasure
    from mfn_compile.tune.whole_network import Bench


@dataclass(frozen=True, eq=False)
class Network:
    """What is tuned.

    Attributes:
        source: the network with one variant.
        graph: read from `source`.
        images: uint8 RGB [N, height, width, 3] to check candidates with.
    """

    source: LayerSource
    graph: IntegerGraph
    images: NDArray[np.uint8]


class Place(Protocol):
    """Where the candidates of a variant run."""

    @property
    def title(self) -> str:
        """For people."""

    @property
    def name(self) -> str:
        """What records say they were measured on."""

    @property
    def unit(self) -> Unit:
        """Of what is counted there."""

    @property
    def looks(self) -> tuple[Look, ...]:
        """For the outside tools that `measure` needs."""

    def milliseconds(self, spent: float) -> Milliseconds | None:
        """Time of so many units; None where it cannot be told."""

    def measure(self, network: Network) -> NetworkMeasure:
        """What measures candidates there.

        Raises:
            DeviceError: a tool, the tracker or the boards are missing.
        """

    def measure_blocks(self, network: Network, records: Records) -> NetworkMeasure | None:
        """What measures rows of blocks, with the kernels' records; None where nothing can."""


@dataclass(frozen=True)
class VirtualPlace:
    """A modelled core."""

    device: VirtualDevice

    @property
    def title(self) -> str:
        """Board, core and clock."""
        return self.device.title

    @property
    def name(self) -> str:
        """virtual:CORE."""
        return f"{VIRTUAL}{self.device.core.name}"

    @property
    def unit(self) -> Unit:
        """Modelled ones."""
        return "cycles"

    @property
    def looks(self) -> tuple[Look, ...]:
        """QEMU, compilers and the core's model."""
        return of_virtual(self.device)

    def milliseconds(self, spent: float) -> Milliseconds | None:
        """Modelled; None for a core that is on no calibrated board."""
        return self.device.milliseconds(spent)

    def measure(self, network: Network) -> NetworkMeasure:
        """As many networks at a time as this machine has cores."""
        from mfn_compile.tune.measure import NetworkMeasure  # noqa: PLC0415 - loads TVM

        return NetworkMeasure(self._bench(network), environment.cores())

    def measure_blocks(self, network: Network, records: Records) -> NetworkMeasure:
        """Likewise."""
        from mfn_compile.tune.block_strips import BlockBench  # noqa: PLC0415 - loads TVM
        from mfn_compile.tune.measure import NetworkMeasure  # noqa: PLC0415

        return NetworkMeasure(BlockBench(self._bench(network), records), environment.cores())

    def _bench(self, network: Network) -> Bench:
        from mfn_compile.tune.whole_network import Bench  # noqa: PLC0415 - loads TVM

        code = network.source.code
        (variant,) = code.variants
        return Bench.of(network.graph, code.triple, variant, self.device.core, network.images)


@dataclass(frozen=True)
class BoardPlace:
    """Boards that share a key.

    Attributes:
        address: of the tracker, with the key.
        seconds: of one network, building and waiting for a free board included.
    """

    address: RpcAddress
    seconds: float

    @property
    def title(self) -> str:
        """The address."""
        return str(self.address)

    @property
    def name(self) -> str:
        """The key: the tracker may move, and boards that share a key are alike."""
        return self.address.key

    @property
    def unit(self) -> Unit:
        """Measured nanoseconds."""
        return "ns"

    @property
    def looks(self) -> tuple[Look, ...]:
        """A compiler; the tracker is asked when candidates are measured."""
        return (require_cross_compiler,)

    def milliseconds(self, spent: float) -> Milliseconds | None:
        """Measured: medians of the kernels, added up."""
        return Milliseconds(value=spent / 1e6)

    def measure(self, network: Network) -> NetworkMeasure:
        """As many networks at a time as there are boards."""
        from mfn_compile.device.real.tracker import count_boards  # noqa: PLC0415
        from mfn_compile.tune.board_network import BoardBench  # noqa: PLC0415 - loads TVM
        from mfn_compile.tune.measure import NetworkMeasure  # noqa: PLC0415

        boards = count_boards(self.address, self.seconds)
        command = require_cross_compiler().shared
        bench = BoardBench(
            network.source, network.graph, network.images, self.address, command, self.seconds
        )
        return NetworkMeasure(bench, boards)

    def measure_blocks(self, network: Network, records: Records) -> None:
        """A board tells times of kernels, and those of strips hardly differ: the rule stays."""
