"""Train the demo model on rendered faces and write its weights.

Two steps, both seeded, the defaults are those of the committed weights:

    python tools/train_demo.py render --work-dir build/demo
    python tools/train_demo.py train --work-dir build/demo --output demo.safetensors

The network is trained at a low resolution first, where a step costs a third, and finished at
112x112; between two resolutions the kernel of the global depthwise convolution is resampled.
Training resumes from `checkpoint.pt` in the work directory; the `export` command writes the
weights of the checkpoint before training is over.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from mfn_compile.demo.benchmark import Seeds, pairs, training_seeds
from mfn_compile.demo.faces import SIZE, render
from mfn_compile.demo.sampling import generator
from mfn_compile.model.network import MobileFaceNet, MobileFaceNetConfig

CHUNK = 240
STAGES = ("48:2000:2e-3:8e-4", "64:1000:1e-3:4e-4", "112:640:6e-4:1e-5")
PREPROCESSING = {"color": "RGB", "mean": [127.5] * 3, "std": [128.0] * 3}
Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Stage:
    """Training at one resolution; the rate falls from `rate` to `last_rate` on a cosine."""

    size: int
    steps: int
    rate: float
    last_rate: float

    @classmethod
    def parse(cls, text: str) -> Stage:
        """Read `size:steps:rate:last_rate`."""
        size, steps, rate, last_rate = text.split(":")
        return cls(int(size), int(steps), float(rate), float(last_rate))

    def rate_at(self, step: int, warm_up: int = 60) -> float:
        """Learning rate of a step, with a linear warm-up."""
        wave = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        rate = self.last_rate + (self.rate - self.last_rate) * wave
        return rate * min(1.0, (step + 1) / warm_up)


class ArcFaceHead(nn.Module):
    """Additive angular margin softmax over the training identities."""

    def __init__(self, width: int, classes: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, width) * 0.05)
        self.scale = scale

    def forward(self, embedding: Tensor, label: Tensor, margin: float) -> Tensor:
        """Cross entropy with the margin added to the angle of the true class."""
        cosine = functional.linear(
            functional.normalize(embedding), functional.normalize(self.weight)
        )
        true = cosine.gather(1, label[:, None]).clamp(-1 + 1e-6, 1 - 1e-6)
        shifted = torch.cos(torch.acos(true) + margin)
        # Beyond pi - margin the cosine would rise again; go on linearly instead.
        beyond = true - math.sin(math.pi - margin) * margin
        target = torch.where(true > math.cos(math.pi - margin), shifted, beyond)
        logits = cosine.scatter(1, label[:, None], target) * self.scale
        return functional.cross_entropy(logits, label)


class _ChannelPReLU(torch.autograd.Function):
    """PReLU whose backward pass is vectorized on channels-last maps; torch's own is not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x, slope)
        return functional.prelu(x, slope)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, slope = ctx.saved_tensors
        shape = x.permute(0, 2, 3, 1).shape
        flat = x.permute(0, 2, 3, 1).reshape(-1, shape[-1])
        flat_grad = grad.permute(0, 2, 3, 1).reshape(-1, shape[-1])
        negative = flat_grad * (flat < 0)
        grad_x = torch.addcmul(flat_grad, negative, slope - 1)
        return grad_x.view(shape).permute(0, 3, 1, 2), (negative * flat).sum(0)


class FastPReLU(nn.PReLU):
    """Same parameters and output as `nn.PReLU`, a sixth less time for a training step."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the slopes."""
        return _ChannelPReLU.apply(x, self.weight)  # type: ignore[no-any-return, no-untyped-call]


def with_fast_prelu(model: nn.Module) -> None:
    """Replace every PReLU in place; names and weights stay."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.PReLU:
                fast = FastPReLU(child.num_parameters)
                fast.load_state_dict(child.state_dict())
                setattr(module, name, fast)


def render_chunk(seeds: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]) -> Images:
    """Render one chunk; top level so that worker processes can import it."""
    return render(*seeds)


def render_to(path: Path, seeds: Seeds, workers: int) -> None:
    """Render `seeds` into the array file `path` unless it is there already."""
    if path.exists():
        return
    partial = path.with_suffix(".partial")
    shape = (len(seeds), SIZE, SIZE, 3)
    pool = np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
    starts = range(0, len(seeds), CHUNK)
    chunks = [(seeds.identity[i : i + CHUNK], seeds.shot[i : i + CHUNK]) for i in starts]
    began = time.monotonic()
    with ProcessPoolExecutor(workers) as executor:
        for start, images in zip(starts, executor.map(render_chunk, chunks), strict=True):
            pool[start : start + len(images)] = images
            if start // CHUNK % 40 == 0:
                print(f"rendered {start + len(images)}/{len(seeds)}", flush=True)
    pool.flush()
    partial.rename(path)
    print(f"{path.name}: {len(seeds)} pictures in {time.monotonic() - began:.0f} s", flush=True)


def to_input(images: Images, size: int) -> Tensor:
    """uint8 [N, 112, 112, 3] to normalized float32 [N, 3, size, size], channels last."""
    x = (torch.from_numpy(images).permute(0, 3, 1, 2).float() - 127.5) / 128
    if size != SIZE:
        x = functional.interpolate(x, (size, size), mode="bilinear", antialias=True)
    return x.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def embed(model: nn.Module, images: Images, size: int, batch: int = 60) -> npt.NDArray[np.float32]:
    """L2-normalized embeddings, float32 [N, D]."""
    model.eval()
    starts = range(0, len(images), batch)
    parts = [model(to_input(images[i : i + batch], size)).float() for i in starts]
    model.train()
    return functional.normalize(torch.cat(parts)).numpy()


@dataclass(frozen=True)
class Verification:
    """Ten-fold accuracy on the held-out pairs."""

    accuracy: float
    fold_std: float
    tar_1e2: float
    tar_1e3: float

    def __str__(self) -> str:
        return (
            f"accuracy {100 * self.accuracy:.2f} % +- {100 * self.fold_std:.2f} "
            f"TAR@FAR=1e-2 {100 * self.tar_1e2:.2f} % TAR@FAR=1e-3 {100 * self.tar_1e3:.2f} %"
        )


def verify(embedding: npt.NDArray[np.float32]) -> Verification:
    """Choose the threshold on nine folds, score the tenth, for every fold."""
    table = pairs()
    score = (embedding[table.first] * embedding[table.second]).sum(axis=1)
    thresholds = np.sort(score)
    accuracies = []
    for fold in range(int(table.fold.max()) + 1):
        train = table.fold != fold
        accepted = score[train][None, :] >= thresholds[::10, None]
        best = int((accepted == table.same[train]).mean(axis=1).argmax())
        accuracies.append(((score[~train] >= thresholds[::10][best]) == table.same[~train]).mean())
    impostors = np.sort(score[~table.same])[::-1]
    tars = [
        float((score[table.same] > impostors[int(far * impostors.size)]).mean())
        for far in (1e-2, 1e-3)
    ]
    return Verification(float(np.mean(accuracies)), float(np.std(accuracies)), *tars)


def resized(state: dict[str, Tensor], size: int) -> dict[str, Tensor]:
    """The weights for another input size: resample the global depthwise kernel."""
    key = "global_depthwise.conv.weight"
    old = state[key]
    new = functional.interpolate(old, (size // 16, size // 16), mode="bicubic", align_corners=False)
    # Keep the response to a constant map.
    new = new * (old.shape[-1] * old.shape[-2] / (new.shape[-1] * new.shape[-2]))
    return {**state, key: new}


def build(size: int, state: dict[str, Tensor] | None) -> MobileFaceNet:
    """The network for one input size, in training mode, optionally with given weights."""
    model = MobileFaceNet(MobileFaceNetConfig(height=size, width=size))
    if state is not None:
        model.load_state_dict(resized(state, size))
    with_fast_prelu(model)
    return model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload, no-any-return]


def make_optimizer(model: nn.Module, head: nn.Module, decay: float) -> torch.optim.AdamW:
    """AdamW with weight decay on the convolutions only."""
    named = list(model.parameters())
    groups = [
        {"params": [p for p in named if p.dim() > 1], "weight_decay": decay},
        {"params": [p for p in named if p.dim() <= 1], "weight_decay": 0.0},
        {"params": list(head.parameters()), "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98))


def batches(
    pool: Images, shots: int, batch: int, seed: int, stage: int, start: int
) -> Iterator[tuple[Images, Tensor]]:
    """Endless random batches, half of them mirrored; each follows from its step number."""
    step = start
    while True:
        rng = generator(seed, stage, step)
        index = np.sort(rng.integers(len(pool), size=batch))
        images = pool[index]
        mirror = rng.random(batch) < 0.5
        images[mirror] = images[mirror][:, :, ::-1]
        yield images, torch.from_numpy(index // shots)
        step += 1


@torch.no_grad()
def recalibrate(model: nn.Module, pool: Images, shots: int, seed: int, size: int) -> None:
    """Replace the running BatchNorm statistics by averages over training pictures."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    model.train()
    source = batches(pool, shots, 128, seed, 99, 0)
    for _ in range(24):
        model(to_input(next(source)[0], size))
    for norm in norms:
        norm.momentum = 0.1


def export(model: nn.Module, path: Path, note: str) -> None:
    """Write the plain float32 state dict with its description."""
    state = {
        name: value.detach().float().contiguous().clone()
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    metadata = {
        "demo": "true",
        "preprocessing": json.dumps(PREPROCESSING),
        "description": "demo model on rendered faces",
        "training": note,
    }
    save_file(state, path, metadata)


class Trainer:
    """Runs the stages, printing progress and saving a checkpoint as it goes."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.stages: list[Stage] = [Stage.parse(text) for text in args.stage]
        self.pool: Images = np.load(args.work_dir / "train.npy", mmap_mode="r")
        self.held_out: Images = np.load(args.work_dir / "pairs.npy")
        self.head = ArcFaceHead(128, len(self.pool) // args.shots, args.scale)
        self.checkpoint = args.work_dir / "checkpoint.pt"

    def run(self) -> None:
        """Train all stages from the checkpoint, or from the start."""
        saved = torch.load(self.checkpoint) if self.checkpoint.exists() else None
        state = None
        first = 0
        if saved is not None:
            first, state = saved["stage"], saved["model"]
            self.head.load_state_dict(saved["head"])
        for number in range(first, len(self.stages)):
            model = build(self.stages[number].size, state)
            self._stage(number, model, saved if number == first else None)
            state = model.state_dict()
        assert state is not None
        self.finish(state)

    def _stage(self, number: int, model: MobileFaceNet, saved: dict[str, object] | None) -> None:
        args, stage = self.args, self.stages[number]
        optimizer = make_optimizer(model, self.head, args.decay)
        start = 0
        if saved is not None:
            optimizer.load_state_dict(saved["optimizer"])  # type: ignore[arg-type]
            start = int(saved["step"])  # type: ignore[call-overload]
        source = batches(self.pool, args.shots, args.batch, args.seed, number, start)
        began, total = time.monotonic(), 0.0
        for step in range(start, stage.steps):
            for group in optimizer.param_groups:
                group["lr"] = stage.rate_at(step)
            total += self._step(model, optimizer, next(source), stage.size, number, step)
            done = step + 1
            if done % 20 == 0:
                pace = 20 * args.batch / (time.monotonic() - began)
                print(f"size {stage.size} step {done}/{stage.steps} loss {total / 20:.3f} "
                      f"{pace:.0f} pictures/s", flush=True)  # fmt: skip
                began, total = time.monotonic(), 0.0
            if done % args.every == 0 or done == stage.steps:
                result = verify(embed(model, self.held_out, stage.size))
                print(f"size {stage.size} step {done} held-out {result}", flush=True)
                self._save(number, done, model, optimizer)
                began = time.monotonic()

    def _step(
        self,
        model: MobileFaceNet,
        optimizer: torch.optim.AdamW,
        data: tuple[Images, Tensor],
        size: int,
        number: int,
        step: int,
    ) -> float:
        images, label = data
        # A full margin from the first step would keep a fresh network from learning.
        past = step / self.stages[number].steps - self.args.plain
        ease = 1.0 if number else min(1.0, max(0.0, past / self.args.ease))
        loss = self.head(model(to_input(images, size)), label, self.args.margin * ease)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        return float(loss.detach())

    def _save(
        self, number: int, step: int, model: MobileFaceNet, optimizer: torch.optim.AdamW
    ) -> None:
        partial = self.checkpoint.with_suffix(".partial")
        content = {"stage": number, "step": step, "model": model.state_dict(),
                   "head": self.head.state_dict(), "optimizer": optimizer.state_dict()}  # fmt: skip
        torch.save(content, partial)
        partial.replace(self.checkpoint)

    def finish(self, state: dict[str, Tensor]) -> None:
        """Recalibrate, score and write weights, at the full size whatever they were trained at."""
        args, size = self.args, SIZE
        model = build(size, state)
        recalibrate(model, self.pool, args.shots, args.seed, size)
        print(f"final held-out {verify(embed(model, self.held_out, size))}", flush=True)
        people = len(self.pool) // args.shots
        note = f"ArcFace on {people} rendered identities; stages {' '.join(args.stage)}"
        export(model, args.output, note)
        print(f"wrote {args.output}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("render", "train", "export"):
        command = commands.add_parser(name)
        command.add_argument("--work-dir", type=Path, required=True)
        command.add_argument("--shots", type=int, default=20, help="pictures an identity")
    commands.choices["render"].add_argument("--identities", type=int, default=2000)
    commands.choices["render"].add_argument("--workers", type=int, default=2)
    for train in (commands.choices["train"], commands.choices["export"]):
        _training_arguments(train)
    return parser.parse_args()


def _training_arguments(train: argparse.ArgumentParser) -> None:
    train.add_argument("--output", type=Path, required=True)
    train.add_argument("--stage", action="append", help="size:steps:rate:last_rate, repeatable")
    train.add_argument("--batch", type=int, default=64)
    train.add_argument("--margin", type=float, default=0.3)
    train.add_argument("--scale", type=float, default=32.0)
    train.add_argument("--decay", type=float, default=0.05)
    train.add_argument("--plain", type=float, default=0.3, help="share of stage 1 without margin")
    train.add_argument("--ease", type=float, default=0.6, help="share of stage 1 to full margin")
    train.add_argument("--every", type=int, default=200, help="steps between checkpoints")
    train.add_argument("--seed", type=int, default=1)


def main() -> None:
    """Entry point."""
    args = _arguments()
    args.work_dir.mkdir(parents=True, exist_ok=True)
    if args.command == "render":
        seeds = training_seeds(args.identities, args.shots)
        render_to(args.work_dir / "pairs.npy", pairs().images, args.workers)
        render_to(args.work_dir / "train.npy", seeds, args.workers)
        return
    args.stage = args.stage or list(STAGES)
    torch.manual_seed(args.seed)
    trainer = Trainer(args)
    if args.command == "export":
        trainer.finish(torch.load(trainer.checkpoint)["model"])
    else:
        trainer.run()


if __name__ == "__main__":
    main()
