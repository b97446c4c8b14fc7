"""Layer graphs of ten published networks, in the text form that ncnn reads (.param).

`tools/calibrate_virtual_boards.py` runs them on the virtual board, because their times on boards
are published. Their shapes are facts from the papers and from ncnn's benchmark folder: which
activations are fused into a convolution, and which int8 convolutions give int8 on to the next
one, decides the kernels that ncnn runs, so both are as there. Weights are not needed: ncnn takes
zeros.

A layer is `type name inputs outputs input... output... key=value...`; keys of a convolution are
0 outputs, 1 kernel, 3 stride, 4 padding, 5 bias, 6 weights, 7 groups, 8 int8, 9 activation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod

MAGIC = 7767517
CLASSES = 1000
INT8 = 2  # the layer reads int8, or turns float32 into it, and gives float32
DEPTHWISE_INT8 = 1
REQUANTIZE = 100  # added to these: it gives int8 to the next layer
MULTIPLY = 2

Shape = tuple[int, ...]  # width, height, channels; or the length of a vector


@dataclass(frozen=True)
class Blob:
    """What a layer gives to others."""

    name: str
    shape: Shape

    @property
    def channels(self) -> int:
        """Channels of a map, values of a vector."""
        return self.shape[-1]

    @property
    def hint(self) -> str:
        """Rank, width, height and channels, as ncnn writes them."""
        padded = self.shape if len(self.shape) == 3 else (*self.shape, 1, 1)
        return ",".join(map(str, (len(self.shape), *padded)))


@dataclass
class Graph:
    """A network under construction."""

    lines: list[str] = field(default_factory=list)
    blobs: int = 0
    macs: int = 0

    def text(self) -> str:
        """The file."""
        return f"{MAGIC}\n{len(self.lines)} {self.blobs}\n" + "\n".join(self.lines) + "\n"

    def layer(
        self, kind: str, inputs: tuple[Blob, ...], shapes: tuple[Shape, ...], *parameters: str
    ) -> tuple[Blob, ...]:
        """Add a layer; its outputs."""
        name = f"{kind.lower()}{len(self.lines)}"
        made = tuple(
            Blob(name if len(shapes) == 1 else f"{name}_{index}", shape)
            for index, shape in enumerate(shapes)
        )
        self.blobs += len(made)
        hints = f"-23330={4 * len(made)},{','.join(blob.hint for blob in made)}"
        words = [kind, name, str(len(inputs)), str(len(made))]
        words += [blob.name for blob in (*inputs, *made)]
        self.lines.append(" ".join([*words, hints, *parameters]))
        return made

    def same(self, kind: str, *inputs: Blob, parameters: tuple[str, ...] = ()) -> Blob:
        """Add a layer whose output is as large as its first input."""
        return self.layer(kind, inputs, (inputs[0].shape,), *parameters)[0]

    def image(self, size: int) -> Blob:
        """The input: three channels."""
        shape = (size, size, 3)
        words = (f"0={size}", f"1={size}", "2=3")
        return self.layer("Input", (), (shape,), *words)[0]

    def convolution(
        self,
        blob: Blob,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        pad: int | None = None,
        relu: bool = True,
        int8: int = 0,
        depthwise: bool = False,
    ) -> Blob:
        """Add a convolution, by default padded to keep the size, with a ReLU in it."""
        pad = kernel // 2 if pad is None else pad
        width, height = ((side + 2 * pad - kernel) // stride + 1 for side in blob.shape[:2])
        weights = outputs * kernel * kernel * (1 if depthwise else blob.channels)
        self.macs += weights * width * height
        optional = ((3, stride, 1), (4, pad, 0), (5, 1, 0), (6, weights, 0))
        ending = ((7, outputs if depthwise else 0, 0), (8, int8, 0), (9, int(relu), 0))
        words = [f"{key}={value}" for key, value, usual in optional + ending if value != usual]
        kind = "ConvolutionDepthWise" if depthwise else "Convolution"
        shape = (width, height, outputs)
        return self.layer(kind, (blob,), (shape,), f"0={outputs}", f"1={kernel}", *words)[0]

    def depthwise(
        self, blob: Blob, kernel: int = 3, stride: int = 1, *, relu: bool = True, int8: int = 0
    ) -> Blob:
        """Add a convolution of every channel with itself."""
        return self.convolution(
            blob, blob.channels, kernel, stride, relu=relu, int8=int8, depthwise=True
        )

    def product(self, blob: Blob, outputs: int, *, relu: bool = False, int8: int = 0) -> Blob:
        """Add a matrix product with bias."""
        weights = outputs * prod(blob.shape)
        self.macs += weights
        words = [f"{key}={value}" for key, value in ((8, int8), (9, int(relu))) if value]
        fixed = (f"0={outputs}", "1=1", f"2={weights}")
        return self.layer("InnerProduct", (blob,), ((outputs,),), *fixed, *words)[0]

    def split(self, blob: Blob) -> tuple[Blob, ...]:
        """Give a blob to two layers."""
        return self.layer("Split", (blob,), (blob.shape, blob.shape))

    def concat(self, *blobs: Blob) -> Blob:
        """Put channels one behind the other."""
        shape = (*blobs[0].shape[:2], sum(blob.channels for blob in blobs))
        return self.layer("Concat", blobs, (shape,))[0]

    def largest(self, blob: Blob) -> Blob:
        """Add the maximum over 3x3 at every second place, the last one partly outside."""
        width, height = (-(-(side - 3) // 2) + 1 for side in blob.shape[:2])
        return self.layer("Pooling", (blob,), ((width, height, blob.channels),), "1=3", "2=2")[0]

    def average(self, blob: Blob) -> Blob:
        """Add the average of every channel."""
        return self.layer("Pooling", (blob,), ((blob.channels,),), "0=1", "4=1")[0]

    def classify(self, blob: Blob, *, int8: int = 0) -> None:
        """End with scores of the classes."""
        self.same("Softmax", self.product(blob, CLASSES, int8=int8))


def mobilenet(int8: bool) -> Graph:
    """MobileNet 1.0 (Howard et al. 2017)."""
    graph = Graph()
    dense, single = (INT8 + REQUANTIZE, DEPTHWISE_INT8 + REQUANTIZE) if int8 else (0, 0)
    blob = graph.convolution(graph.image(224), 32, 3, 2, int8=dense)
    blocks = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
    blocks += [(512, 1)] * 5 + [(1024, 2), (1024, 1)]
    for index, (outputs, stride) in enumerate(blocks, 1):
        blob = graph.depthwise(blob, 3, stride, int8=single)
        last = int8 and index == len(blocks)
        blob = graph.convolution(blob, outputs, int8=INT8 if last else dense)
    graph.classify(graph.average(blob), int8=INT8 if int8 else 0)
    return graph


def inverted(
    graph: Graph, blob: Blob, expanded: int, outputs: int, kernel: int, stride: int, add: str
) -> Blob:
    """A block of MobileNet v2: expand, depthwise, reduce; added to its input if that fits."""
    shortcut = None
    if stride == 1 and blob.channels == outputs:
        shortcut, blob = graph.split(blob)
    blob = graph.convolution(blob, expanded)
    blob = graph.depthwise(blob, kernel, stride)
    blob = graph.convolution(blob, outputs, relu=False)
    if shortcut is None:
        return blob
    words = ("0=1",) if add == "Eltwise" else ()
    return graph.same(add, shortcut, blob, parameters=words)


def mobilenet_v2() -> Graph:
    """MobileNet v2 1.0 (Sandler et al. 2018)."""
    graph = Graph()
    blob = graph.convolution(graph.image(224), 32, 3, 2)
    groups = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)]
    groups += [(6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for factor, outputs, blocks, stride in groups:
        for index in range(blocks):
            now = stride if index == 0 else 1
            blob = inverted(graph, blob, factor * blob.channels, outputs, 3, now, "Eltwise")
    graph.classify(graph.average(graph.convolution(blob, 1280)))
    return graph


def mnasnet() -> Graph:
    """MnasNet-B1 1.0 (Tan et al. 2018)."""
    graph = Graph()
    blob = graph.convolution(graph.image(224), 32, 3, 2)
    blob = graph.convolution(graph.depthwise(blob), 16, relu=False)
    groups = [(3, 24, 3, 3, 2), (3, 40, 3, 5, 2), (6, 80, 3, 5, 2), (6, 96, 2, 3, 1)]
    groups += [(6, 192, 4, 5, 2), (6, 320, 1, 3, 1)]
    for factor, outputs, blocks, kernel, stride in groups:
        for index in range(blocks):
            now = stride if index == 0 else 1
            blob = inverted(graph, blob, factor * blob.channels, outputs, kernel, now, "BinaryOp")
    blob = graph.convolution(blob, 1280)
    words = ("0=1", "1=7", "4=1", "5=1")
    graph.classify(graph.layer("Pooling", (blob,), ((1280,),), *words)[0])
    return graph


def _excite(graph: Graph, blob: Blob) -> Blob:
    """Scale channels by what a small network makes of their averages."""
    blob, side = graph.split(blob)
    hidden = graph.product(graph.average(side), blob.channels // 4, relu=True)
    factors = graph.same("HardSigmoid", graph.product(hidden, blob.channels))
    return graph.same("BinaryOp", blob, factors, parameters=(f"0={MULTIPLY}",))


def _block_v3(
    graph: Graph, blob: Blob, expanded: int, outputs: int, kernel: int, stride: int, kind: str
) -> Blob:
    """A block of MobileNet v3; `kind` holds h for hard swish and s for squeeze and excite."""
    swish, excite = "h" in kind, "s" in kind
    shortcut = None
    if stride == 1 and blob.channels == outputs:
        shortcut, blob = graph.split(blob)
    if expanded != blob.channels:
        blob = graph.convolution(blob, expanded, relu=not swish)
        blob = graph.same("HardSwish", blob) if swish else blob
    blob = graph.depthwise(blob, kernel, stride, relu=not (swish or excite))
    blob = _excite(graph, blob) if excite else blob
    if swish or excite:
        blob = graph.same("HardSwish" if swish else "ReLU", blob)
    blob = graph.convolution(blob, outputs, relu=False)
    return blob if shortcut is None else graph.same("BinaryOp", shortcut, blob)


def mobilenet_v3() -> Graph:
    """MobileNet v3 large (Howard et al. 2019), the widths as in ncnn's file."""
    graph = Graph()
    blob, gate = graph.split(graph.convolution(graph.image(224), 16, 3, 2, relu=False))
    gate = graph.same("HardSigmoid", gate)
    blob = graph.same("BinaryOp", blob, gate, parameters=(f"0={MULTIPLY}",))
    blocks = [(16, 16, 3, 1, ""), (64, 24, 3, 2, ""), (72, 24, 3, 1, ""), (72, 40, 5, 2, "s")]
    blocks += [(120, 40, 5, 1, "s")] * 2
    blocks += [(240, 80, 3, 2, "h"), (200, 80, 3, 1, "h"), (184, 80, 3, 1, "h")]
    blocks += [(184, 80, 3, 1, "h"), (480, 112, 3, 1, "hs"), (672, 112, 3, 1, "hs")]
    blocks += [(672, 160, 5, 1, "hs"), (672, 160, 5, 2, "hs"), (960, 160, 5, 1, "hs")]
    for expanded, outputs, kernel, stride, kind in blocks:
        blob = _block_v3(graph, blob, expanded, outputs, kernel, stride, kind)
    blob = graph.same("HardSwish", graph.convolution(blob, 960, relu=False))
    blob = graph.same("HardSwish", graph.average(blob))
    blob = graph.same("Reshape", blob, parameters=("0=-1",))
    graph.classify(graph.same("HardSwish", graph.product(blob, 1280)))
    return graph


def shufflenet_v2() -> Graph:
    """ShuffleNet v2 1.0x (Ma et al. 2018)."""
    graph = Graph()
    blob = graph.largest(graph.convolution(graph.image(224), 24, 3, 2))
    for half, blocks in ((58, 4), (116, 8), (232, 4)):
        for index in range(blocks):
            if index == 0:
                right, left = graph.split(blob)
                left = graph.convolution(graph.depthwise(left, 3, 2, relu=False), half)
            else:
                shape = (*blob.shape[:2], half)
                words = f"-23300=2,{half},-233"
                left, right = graph.layer("Slice", (blob,), (shape, shape), words)
            right = graph.convolution(right, half)
            right = graph.depthwise(right, 3, 2 if index == 0 else 1, relu=False)
            blob = graph.concat(left, graph.convolution(right, half))
            blob = graph.same("ShuffleChannel", blob, parameters=("0=2",))
    graph.classify(graph.average(graph.convolution(blob, 1024)))
    return graph


def squeezenet(int8: bool) -> Graph:
    """SqueezeNet 1.1 (Iandola et al. 2016)."""
    graph = Graph()
    wide, narrow = (INT8, INT8 + REQUANTIZE) if int8 else (0, 0)
    blob = graph.convolution(graph.image(227), 64, 3, 2, pad=0, int8=wide)
    blob = graph.largest(blob)
    for index, squeezed in enumerate((16, 16, 32, 32, 48, 48, 64, 64)):
        if index in (2, 4):
            blob = graph.largest(blob)
        far, near = graph.split(graph.convolution(blob, squeezed, int8=narrow))
        near = graph.convolution(near, 4 * squeezed, int8=wide)
        blob = graph.concat(near, graph.convolution(far, 4 * squeezed, 3, int8=wide))
    blob = graph.convolution(blob, CLASSES, pad=1, int8=wide)
    graph.same("Softmax", graph.average(blob))
    return graph


def resnet18(int8: bool) -> Graph:
    """ResNet-18 (He et al. 2015), with a convolution in the first shortcut."""
    graph = Graph()
    last, inner = (INT8, INT8 + REQUANTIZE) if int8 else (0, 0)
    blob = graph.largest(graph.convolution(graph.image(224), 64, 7, 2, int8=last))
    for outputs in (64, 128, 256, 512):
        for index in range(2):
            stride = 2 if index == 0 and outputs > 64 else 1
            first, second = graph.split(blob)
            if index == 0:
                second = graph.convolution(second, outputs, 1, stride, relu=False, int8=last)
                shortcut, deep = second, first
            else:
                shortcut, deep = first, second
            deep = graph.convolution(deep, outputs, 3, stride, int8=inner)
            deep = graph.convolution(deep, outputs, 3, relu=False, int8=last)
            blob = graph.same("Eltwise", shortcut, deep, parameters=("0=1",))
            blob = graph.same("ReLU", blob)
    pooled = graph.layer("Pooling", (blob,), ((1, 1, 512),), "0=1", "1=7")[0]
    graph.classify(pooled)
    return graph


NETWORKS: dict[str, Callable[[], Graph]] = {
    "shufflenet_v2": shufflenet_v2,
    "mobilenet_v3": mobilenet_v3,
    "mnasnet": mnasnet,
    "mobilenet_v2": mobilenet_v2,
    "squeezenet": lambda: squeezenet(int8=False),
    "mobilenet": lambda: mobilenet(int8=False),
    "resnet18": lambda: resnet18(int8=False),
    "squeezenet_int8": lambda: squeezenet(int8=True),
    "mobilenet_int8": lambda: mobilenet(int8=True),
    "resnet18_int8": lambda: resnet18(int8=True),
}


def image_size(network: str) -> int:
    """Width and height of the image that a network takes."""
    return 227 if network.startswith("squeezenet") else 224
