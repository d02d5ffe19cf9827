"""Multiply-accumulates against torch's counter, and parameters against the model's own, where neither is a layer's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.utils.flop_counter import FlopCounterMode

import padrewrite as pr


class Frames(nn.Module):
    """Frames of a video are a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x.flatten(0, 1)))


class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, bias=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.conv(torch.cat([x, y], 0))


class Correlating(nn.Module):
    """A feature is the kernel of a convolution of another (Bertinetto et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(8, 8), nn.Conv2d(4, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return F.conv2d(x, x[:, :, 1:3, 1:3] * 2)


class Modulated(nn.Module):
    """Kernels of each sample, in groups (Karras et al. 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.style = nn.Parameter(torch.randn(4, 3, 3, 3)), nn.Linear(5, 3)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        kernels = self.weight[None] * self.style(code)[:, None, :, None, None]
        kernels = kernels * (kernels.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
        out = F.conv2d(x.flatten(0, 1)[None], kernels.flatten(0, 1), padding=1, groups=len(x))
        return out.unflatten(1, (len(x), 4))


class Generated(nn.Module):
    """A kernel that a small network makes of a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.code, self.maker = nn.Parameter(torch.randn(5)), nn.Linear(5, 2 * 3 * 3 * 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.maker(self.code).view(2, 3, 3, 3))


class Twice(nn.Module):
    """One weight in two calls."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(self.conv(x), self.conv.weight, padding=1)


def tied() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    net[1].weight = net[0].weight
    return net


def image(channels: int, samples: int = 1) -> Tensor:
    return torch.randn(samples, channels, 10, 10)


def elements(*owners: nn.Module | nn.Parameter) -> int:
    """Each parameter once."""
    found = [p for owner in owners for p in (owner.parameters() if isinstance(owner, nn.Module) else [owner])]
    return sum(p.numel() for p in {id(p): p for p in found}.values())


Case = tuple[Callable[[], nn.Module], tuple[Tensor, ...], Callable[[nn.Module], int]]
CASES: dict[str, Case] = {
    "frames": (Frames, (torch.randn(1, 8, 3, 16, 16),), elements),
    "frames of two": (Frames, (torch.randn(2, 8, 3, 16, 16),), elements),
    "siamese": (Siamese, (torch.randn(1, 1, 10, 10), torch.randn(1, 1, 10, 10)), elements),
    "samples": (lambda: nn.Conv2d(4, 6, 3, groups=2), (image(4, 3),), elements),
    "no batch": (lambda: nn.Conv2d(4, 6, 3), (image(4)[0],), elements),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, 2), (image(4, 2),), elements),
    "feature": (Correlating, (image(3),), lambda net: elements(net.body[0], net.body[3])),  # pyright: ignore
    "modulated": (Modulated, (image(3, 2), torch.randn(2, 5)), lambda net: elements(net.weight)),  # pyright: ignore
    "generated": (Generated, (image(3),), elements),
    "twice": (Twice, (image(4, 2),), elements),
    "tied": (tied, (image(4),), elements),
    "weight norm": (lambda: weight_norm(nn.Conv2d(3, 4, 3)), (image(3),), elements),
    "spectral norm": (lambda: spectral_norm(nn.Conv2d(3, 4, 3)), (image(3),), elements),
}


@pytest.mark.parametrize("name", CASES)
def test_against_torch(name: str) -> None:
    make, inputs, parameters = CASES[name]
    model = make().eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*inputs)
    flops = sum(n for op, n in counter.get_flop_counts()["Global"].items() if "conv" in str(op))
    analysis = pr.analyze(model, example_inputs=inputs)
    assert analysis.macs == flops // 2
    assert analysis.parameters == parameters(model)
    plan = pr.plan(model, ["partial-padding"], example_inputs=inputs, allow_no_effect=True)
    summary = plan.passes[0].before
    assert summary is not None
    assert (summary.macs, summary.parameters) == (flops // 2, parameters(model))


@pytest.mark.parametrize("name", ["samples", "transposed", "tied", "weight norm", "spectral norm"])
def test_a_module_tree_has_the_same_parameters(name: str) -> None:
    make, inputs, parameters = CASES[name]
    model = make().eval()
    found, wanted = pr.analyze(model), pr.analyze(model, example_inputs=inputs)
    assert found.parameters == parameters(model)
    assert [record.weights for record in found.sites.values()] == [r.weights for r in wanted.sites.values()]


def test_kernels_that_shrink_in_a_module_tree() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1, bias=False))
    plan = pr.plan(model, ["symmetric-even{from_odd=True}"])
    summary, new = plan.passes[0], pr.apply(model, plan)
    assert (summary.before.parameters, summary.after.parameters) == (elements(model), elements(new))  # pyright: ignore
    assert elements(new) < elements(model)


def test_a_feature_has_no_parameters() -> None:
    analysis = pr.analyze(Correlating().eval(), example_inputs=image(3))
    assert [record.parameters for record in analysis.sites.values()] == [3 * 4 * 9 + 4, 4 * 4 + 4, 0]
    assert analysis.sites["body.0"].weights == {"body.0.bias": 4, "body.0.weight": 108}


class Generator(nn.Module):
    """Begins with a linear layer: no input has positions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.conv = nn.Linear(6, 2 * 4 * 4), nn.Conv2d(2, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        return self.conv(self.first(z).view(-1, 2, 4, 4))


def test_a_generator_is_told_why_nothing_is_known() -> None:
    notes = pr.analyze(Generator(), example_inputs=torch.zeros(1, 6)).notes
    assert any("no convolution reads positions of an input" in note for note in notes)
    assert pr.analyze(Frames(), example_inputs=torch.zeros(1, 2, 3, 9, 9)).notes == ()
