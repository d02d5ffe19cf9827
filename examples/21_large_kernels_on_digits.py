"""Large kernels apart at three error budgets: a network of 7x7 convolutions, trained on digits, then made separable.

    python examples/21_large_kernels_on_digits.py                          # one seed, seconds
    python examples/21_large_kernels_on_digits.py --seeds 5 --epochs 20    # table in docs/passes/separable-kernel.md

Every budget carries the same trained weights over. Accuracy is measured right after, and after one epoch of training.
"""

import argparse
from copy import deepcopy
from statistics import mean, stdev

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor, nn

import padrewrite as pr
from padrewrite_passes import SeparableKernel

TRAINED = 500
KEPT = ("90%", "75%", "60%")
"""Of each kernel's square sum: middle channels are as many as that takes."""


def digits(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images of 16x16 pixels, and labels: those to train on, and the others."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(seed))
    images = torch.tensor(data.images, dtype=torch.float32)[order, None] / 16
    images = F.interpolate(images, size=(16, 16), mode="bilinear")
    labels = torch.tensor(data.target)[order]
    return images[:TRAINED], labels[:TRAINED], images[TRAINED:], labels[TRAINED:]


def build(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for read, made in ((1, 16), (16, 24), (24, 24), (24, 24)):
        layers += [nn.Conv2d(read, made, 7, padding=3, bias=False), nn.BatchNorm2d(made), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if made == 24 and read == 16 else []
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10))


def train(net: nn.Module, images: Tensor, labels: Tensor, epochs: int, rate: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    batches = [b for _ in range(epochs) for b in torch.randperm(len(images), generator=generator).split(25)]
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=len(batches))
    net.train()
    for batch in batches:
        optimizer.zero_grad()
        F.cross_entropy(net(images[batch]), labels[batch]).backward()
        optimizer.step()
        schedule.step()
    net.eval()


@torch.no_grad()
def accuracy(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    return 100 * (net.eval()(images).argmax(1) == labels).float().mean().item()


def size(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


parser = argparse.ArgumentParser()
parser.add_argument("--seeds", type=int, default=1)
parser.add_argument("--epochs", type=int, default=4)
options = parser.parse_args()

rows: dict[str, list[tuple[int, float, float]]] = {name: [] for name in ("7x7", *KEPT)}
"""Per network and seed: parameters, accuracy as carried over, accuracy after one more epoch."""
for seed in range(options.seeds):
    images, labels, unseen, truth = digits(seed)
    dense = build(seed)
    train(dense, images, labels, options.epochs, 6e-3, seed)
    for name in rows:
        net = dense if name == "7x7" else pr.transform(dense, [SeparableKernel(mid=name)], example_inputs=images[:2])
        if name != "7x7" and seed == 0:
            print(pr.report(net), end="\n\n")
        before = accuracy(net, unseen, truth)
        if name == "7x7":
            net = deepcopy(net)
        train(net, images, labels, 1, 1e-3, seed)
        rows[name].append((size(net), before, accuracy(net, unseen, truth)))

print(f"{options.seeds} seed(s), {options.epochs} epochs, trained on {TRAINED} digits, tested on the others")
print("kept  parameters  accuracy (%)  after one epoch more (%)")
for name, found in rows.items():
    spread = [f" ± {stdev(f[i] for f in found):.1f}" if options.seeds > 1 else "" for i in (1, 2)]
    before, after = (f"{mean(f[i] for f in found):.1f}{spread[i - 1]}" for i in (1, 2))
    print(f"{name:<5} {mean(f[0] for f in found):>10.0f}  {before:<12}  {after}")

figure = Figure(figsize=(6, 3.8), dpi=130, layout="constrained")
axes = figure.subplots()
across = [mean(f[0] for f in found) / 1000 for found in rows.values()]
for column, label, marker in ((1, "weights carried over", "o"), (2, "and one epoch of training", "s")):
    axes.plot(across, [mean(f[column] for f in found) for found in rows.values()], marker=marker, label=label)
for at, (name, found) in zip(across, rows.items()):
    axes.annotate(name, (at, mean(f[2] for f in found)), xytext=(0, 6), textcoords="offset points", ha="center")
axes.set(xlabel="parameters (thousands)", ylabel="accuracy (%)", ylim=(None, 102))
axes.legend(loc="lower right")
figure.savefig("large_kernels_on_digits.png")
