"""The state-dict layouts of public MobileFaceNets, as a table.

A layout says under which module paths a public implementation keeps the units of the network,
and what its authors feed to it. Sizes are not in the table: they are read from the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mfn_compile.model.network import Activation


@dataclass(frozen=True)
class Unit:
    """Module paths of one convolution unit; `act` "" where the activation has no weights."""

    conv: str
    bn: str
    act: str = ""

    def under(self, prefix: str) -> Unit:
        """The same unit inside the module `prefix`."""
        act = f"{prefix}.{self.act}" if self.act else ""
        return Unit(f"{prefix}.{self.conv}", f"{prefix}.{self.bn}", act)


@dataclass(frozen=True)
class Stage:
    """Blocks at `path`, where {} counts from 0; no {} is one block.

    `first_stride` None means that the list has no stage borders: then the paper's rule decides
    (`recognise.paper_strides`).
    """

    path: str
    first_stride: int | None = None
    optional: bool = False


@dataclass(frozen=True)
class Normalization:
    """(pixel - mean) / std in units of 8-bit pixels, channels in the order of `color`."""

    color: Literal["RGB", "BGR"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Layout:
    """Where one implementation keeps what. Units named in `optional` may be absent."""

    name: str
    stem: Unit
    depthwise: Unit
    pointwise: Unit | None
    stages: tuple[Stage, ...]
    expand: Unit
    depth: Unit
    project: Unit
    head: Unit
    global_depthwise: Unit
    linear: Unit
    normalization: Normalization
    activation: Activation = Activation.PRELU
    depthwise_activation: Activation = Activation.PRELU
    optional: frozenset[str] = frozenset()
    activation_optional: bool = False
    bn_eps: float = 1e-5


def _unit(path: str, conv: str = "conv", bn: str = "bn", act: str = "") -> Unit:
    return Unit(conv, bn, act).under(path)


HALF_128 = Normalization("RGB", (127.5, 127.5, 127.5), (128.0, 128.0, 128.0))
HALF_RGB = Normalization("RGB", (127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
# mxnet's unpack_img yields BGR and the training images were stored without swapping it back
HALF_BGR = Normalization("BGR", (127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
IMAGENET = Normalization(
    "RGB",
    (255 * 0.485, 255 * 0.456, 255 * 0.406),
    (255 * 0.229, 255 * 0.224, 255 * 0.225),
)

OWN = Layout(
    name="mfn-compile",
    stem=_unit("stem", act="act"),
    depthwise=_unit("depthwise", act="act"),
    pointwise=_unit("pointwise", act="act"),
    stages=(Stage("blocks.{}"),),
    expand=_unit("expand", act="act"),
    depth=_unit("depthwise", act="act"),
    project=_unit("project"),
    head=_unit("head", act="act"),
    global_depthwise=_unit("global_depthwise"),
    linear=_unit("linear"),
    normalization=HALF_128,
    optional=frozenset({"depthwise", "pointwise", "head", "linear"}),
    activation_optional=True,
)

FOAMLIU = Layout(
    name="foamliu",
    stem=_unit("conv1", "0", "1"),
    depthwise=_unit("dw_conv", "depthwise", "bn1"),
    pointwise=_unit("dw_conv", "pointwise", "bn2"),
    stages=(Stage("features.{}"),),
    expand=_unit("conv.0", "0", "1"),
    depth=_unit("conv.1", "0", "1"),
    project=_unit("conv", "2", "3"),
    head=_unit("conv2", "0", "1"),
    global_depthwise=_unit("gdconv", "depthwise", "bn"),
    linear=Unit("conv3", "bn"),
    normalization=IMAGENET,
    activation=Activation.RELU6,
    depthwise_activation=Activation.RELU,
)

XIAOCCER = Layout(
    name="xiaoccer",
    stem=_unit("conv1", act="prelu"),
    depthwise=_unit("dw_conv1", act="prelu"),
    pointwise=None,
    stages=(Stage("blocks.{}"),),
    expand=_unit("conv", "0", "1", "2"),
    depth=_unit("conv", "3", "4", "5"),
    project=_unit("conv", "6", "7"),
    head=_unit("conv2", act="prelu"),
    global_depthwise=_unit("linear7"),
    linear=_unit("linear1"),
    normalization=HALF_128,
)

INSIGHTFACE_PYTORCH = Layout(
    name="insightface-pytorch",
    stem=_unit("conv1", act="prelu"),
    depthwise=_unit("conv2_dw", act="prelu"),
    pointwise=None,
    stages=(
        Stage("conv_23", 2),
        Stage("conv_3.model.{}", 1),
        Stage("conv_34", 2),
        Stage("conv_4.model.{}", 1),
        Stage("conv_45", 2),
        Stage("conv_5.model.{}", 1),
    ),
    expand=_unit("conv", act="prelu"),
    depth=_unit("conv_dw", act="prelu"),
    project=_unit("project"),
    head=_unit("conv_6_sep", act="prelu"),
    global_depthwise=_unit("conv_6_dw"),
    linear=Unit("linear", "bn"),
    normalization=HALF_BGR,
)

ARCFACE_TORCH = Layout(
    name="arcface-torch",
    stem=_unit("layers.0.layers", "0", "1", "2"),
    depthwise=_unit("layers.1.layers", "0", "1", "2"),
    pointwise=None,
    stages=(
        Stage("layers.1.layers.{}", 1, optional=True),
        Stage("layers.2", 2),
        Stage("layers.3.layers.{}", 1),
        Stage("layers.4", 2),
        Stage("layers.5.layers.{}", 1),
        Stage("layers.6", 2),
        Stage("layers.7.layers.{}", 1),
    ),
    expand=_unit("layers.0.layers", "0", "1", "2"),
    depth=_unit("layers.1.layers", "0", "1", "2"),
    project=_unit("layers.2.layers", "0", "1"),
    head=_unit("conv_sep.layers", "0", "1", "2"),
    global_depthwise=_unit("features.layers.0.layers", "0", "1"),
    linear=_unit("features.layers", "2", "3"),
    normalization=HALF_RGB,
    optional=frozenset({"depthwise"}),
)

LAYOUTS = (OWN, FOAMLIU, XIAOCCER, INSIGHTFACE_PYTORCH, ARCFACE_TORCH)
