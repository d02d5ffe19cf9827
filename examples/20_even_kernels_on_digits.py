"""Even kernels drift and symmetric ones do not: three networks of one size, trained on a few handwritten digits.

    python examples/20_even_kernels_on_digits.py                           # one seed, seconds
    python examples/20_even_kernels_on_digits.py --seeds 5 --epochs 30     # the table in docs/passes/symmetric-even.md

C3 is twelve 3x3 convolutions of 16 channels; C2 is twelve 2x2 ones of 24 channels, padded after as "same" pads, with as
many weights; C2sp is C2, rewritten by symmetric-even before it is trained.
"""

import argparse
from statistics import mean, stdev

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor, nn

import padrewrite as pr

LAYERS, TRAINED = 12, 300
NETS = {"C3": (3, 16), "C2": (2, 24), "C2sp": (2, 24)}


def digits(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images of 12x12 pixels in the middle of 16x16, and labels: those to train on, and the others."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(seed))
    images = torch.tensor(data.images, dtype=torch.float32)[order, None] / 16
    images = F.pad(F.interpolate(images, size=(12, 12), mode="bilinear"), (2, 2, 2, 2))
    labels = torch.tensor(data.target)[order]
    return images[:TRAINED], labels[:TRAINED], images[TRAINED:], labels[TRAINED:]


def build(name: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    kernel, width = NETS[name]
    layers: list[nn.Module] = [nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    for _ in range(LAYERS):
        conv = nn.Conv2d(width, width, kernel, padding="same", bias=False)
        layers += [conv, nn.BatchNorm2d(width), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))
    return pr.transform(net, ["symmetric-even"], example_inputs=torch.zeros(2, 1, 16, 16)) if name == "C2sp" else net


def train(net: nn.Module, images: Tensor, labels: Tensor, epochs: int, seed: int) -> None:
    batches = [b for e in range(epochs) for b in shuffled(len(images), seed * 1000 + e).split(64)]
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=len(batches))
    for batch in batches:
        optimizer.zero_grad()
        F.cross_entropy(net(images[batch]), labels[batch]).backward()
        optimizer.step()
        schedule.step()


def shuffled(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def drift(net: nn.Module, images: Tensor) -> list[float]:
    """Pixels by which the centre of what an image changes moves from the image to each ReLU, mean of both axes."""

    def centre(change: Tensor) -> Tensor:
        mass, places = change.abs().sum((0, 1)), torch.arange(16.0)
        return ((mass.sum(1) + mass.sum(0)) @ places) / (2 * mass.sum())

    shown, blank, moved = images, torch.zeros_like(images[:1]), []
    for layer in net.children():
        if isinstance(layer, nn.AdaptiveAvgPool2d):
            break
        shown, blank = layer(shown), layer(blank)
        if isinstance(layer, nn.ReLU):
            moved.append((centre(shown - blank) - centre(images)).item())
    return moved


parser = argparse.ArgumentParser()
parser.add_argument("--seeds", type=int, default=1)
parser.add_argument("--epochs", type=int, default=12)
options = parser.parse_args()

right: dict[str, list[float]] = {name: [] for name in NETS}
moved: dict[str, list[list[float]]] = {name: [] for name in NETS}
sizes: dict[str, int] = {}
for seed in range(options.seeds):
    images, labels, unseen, truth = digits(seed)
    for name in NETS:
        net = build(name, seed)
        sizes[name] = sum(p.numel() for p in net.parameters())
        train(net, images, labels, options.epochs, seed)
        net.eval()
        with torch.no_grad():
            right[name].append(100 * (net(unseen).argmax(1) == truth).float().mean().item())
        moved[name].append(drift(net, unseen[:200]))

print(f"{options.seeds} seed(s), {options.epochs} epochs on {TRAINED} digits, tested on the others")
print("net   parameters  accuracy (%)   drift after 12 layers (px)")
for name in NETS:
    spread = f" ± {stdev(right[name]):.1f}" if options.seeds > 1 else ""
    accuracy = f"{mean(right[name]):.1f}{spread}"
    print(f"{name:<5} {sizes[name]:>10}  {accuracy:<13}  {mean(m[-1] for m in moved[name]):+.2f}")

figure = Figure(figsize=(8, 3.6), dpi=130, layout="constrained")
left, bars = figure.subplots(1, 2, width_ratios=(2, 1))
for name, marker in zip(NETS, "os^"):
    left.plot(range(LAYERS + 1), [mean(layer) for layer in zip(*moved[name])], marker=marker, label=name)
left.plot(range(LAYERS + 1), [-i / 2 for i in range(LAYERS + 1)], "k:", label="half a pixel a layer")
left.set(xlabel="layer", ylabel="drift of the activations' centre (px)")
left.legend()
bars.bar(list(NETS), [mean(right[n]) for n in NETS], color="0.7")
for place, name in enumerate(NETS):
    bars.plot([place] * options.seeds, right[name], "k.")
bars.set(ylabel="accuracy (%), a point a seed", ylim=(min(min(r) for r in right.values()) - 2, 100))
figure.savefig("even_kernels_on_digits.png")
