"""Signals that look back on purpose: no finding, however that is spelled; what is late or early by mistake is found."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import padrewrite as pr
from analyses.oracles import NOISE, gradients

SHIFTS = ("misaligned-merge", "half-pixel-shift", "shifted-output")


def shifts(model: nn.Module, x: Tensor) -> list[pr.Finding]:
    analysis = pr.analyze(model.eval(), example_inputs=x)
    return [found for code in SHIFTS for found in analysis.of(code)]


class Net(nn.Module):
    """Layers that a function uses."""

    def __init__(self, forward: Callable[[Any, Tensor], Any], **layers: nn.Module) -> None:
        super().__init__()
        self.run = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


def wavenet(layers: int, kernel: int) -> nn.Module:
    """Gated blocks with residuals and skips, padded before each (van den Oord et al. 2016)."""

    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.start(x)
        skip = torch.zeros(())
        for i in range(layers):
            late = F.pad(x, ((kernel - 1) * 2**i, 0))
            gated = torch.tanh(net.filters[i](late)) * torch.sigmoid(net.gates[i](late))
            skip, x = skip + net.skips[i](gated), x + net.residuals[i](gated)
        return net.end(F.relu(skip))

    def convs(k: int, dilated: bool) -> nn.ModuleList:
        return nn.ModuleList(nn.Conv1d(4, 4, k, dilation=2**i if dilated else 1) for i in range(layers))

    windows = {"filters": convs(kernel, True), "gates": convs(kernel, True)}
    points = {"skips": convs(1, False), "residuals": convs(1, False)}
    return Net(forward, start=nn.Conv1d(2, 4, 1), end=nn.Conv1d(4, 2, 1), **windows, **points)


class Temporal(nn.Module):
    """A block of a TCN (Bai et al. 2018): padded at both ends, the end chomped off, with a residual."""

    def __init__(self, kernel: int, dilation: int, chomp: Callable[[Tensor, int], Tensor]) -> None:
        super().__init__()
        self.pad, self.chomp = (kernel - 1) * dilation, chomp
        self.a = nn.utils.parametrizations.weight_norm(nn.Conv1d(2, 2, kernel, padding=self.pad, dilation=dilation))
        self.b = nn.Conv1d(2, 2, kernel, padding=self.pad, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        y = F.dropout(F.relu(self.chomp(self.a(x), self.pad).contiguous()), 0.1, self.training)
        return F.relu(x + F.relu(self.chomp(F.relu(self.b(y)), self.pad)))


CHOMPS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "slice": lambda y, p: y[:, :, :-p],
    "narrow": lambda y, p: y.narrow(2, 0, y.shape[2] - p),
    "pad": lambda y, p: F.pad(y, (0, -p)),
    "split": lambda y, p: y.split([y.shape[2] - p, p], 2)[0],
}


def temporal(kernel: int, chomp: Callable[[Tensor, int], Tensor], layers: int = 3) -> nn.Module:
    return nn.Sequential(*(Temporal(kernel, 2**i, chomp) for i in range(layers)))


def padded_layers(net: Any, x: Tensor) -> Tensor:
    return x + net.b(F.relu(net.a(x))) + net.a(x)


def cropping(net: Any, x: Tensor) -> Tensor:
    """Without padding: what is added is cropped to the newest samples (the first WaveNets of PyTorch)."""
    skips: list[Tensor] = []
    for layer in (net.a, net.b):
        y = layer(x)
        x = y + x[..., -y.shape[-1] :]
        skips.append(torch.tanh(y))
    return skips[0][..., -x.shape[-1] :] + skips[1] + x


def behind_a_stem(net: Any, x: Tensor) -> Tensor:
    """The stem is no part of what differs between the branches."""
    x = net.stem(x)
    return x + net.block(x)


def codec(net: Any, x: Tensor) -> Tensor:
    """Strided down and transposed up, trimmed at the end (Defossez et al. 2022)."""
    return net.up(net.down(F.pad(x, (2, 0))))[..., :-2]


def causal(kernel: int, dilation: int) -> nn.Sequential:
    pad = (kernel - 1) * dilation
    return nn.Sequential(nn.ConstantPad1d((pad, 0), 0.0), nn.Conv1d(2, 2, kernel, dilation=dilation))


CAUSAL: dict[str, nn.Module] = {
    "wavenet": wavenet(4, 2),
    "wavenet of 3": wavenet(3, 3),
    **{f"tcn, {name}": temporal(2, chomp) for name, chomp in CHOMPS.items()},
    "tcn of 3": temporal(3, CHOMPS["slice"]),
    "layers": Net(padded_layers, a=causal(2, 1), b=causal(4, 3)),
    "cropping": Net(cropping, a=nn.Conv1d(2, 2, 3), b=nn.Conv1d(2, 2, 3, dilation=3)),
    "behind a stem": Net(behind_a_stem, stem=nn.Conv1d(2, 2, 5, padding=2), block=causal(4, 1)),
    "codec that looks back on its way up": Net(
        lambda net, x: net.up(net.down(x))[..., :-2],
        down=nn.Conv1d(2, 2, 2, 2),
        up=nn.ConvTranspose1d(2, 2, 4, 2),
    ),
    "samples of the past are held": Net(
        lambda net, x: F.interpolate(net.down(F.pad(x, (3, 0))), scale_factor=4),
        down=nn.Conv1d(2, 2, 4, 4),
    ),
    "codec of repeated samples": Net(
        lambda net, x: net.end(F.interpolate(net.down(F.pad(x, (2, 0))), scale_factor=2)),
        down=nn.Conv1d(2, 2, 4, 2),
        end=causal(3, 1),
    ),
    "codec": Net(codec, down=nn.Conv1d(2, 2, 4, 2), up=nn.ConvTranspose1d(2, 2, 4, 2)),
}


@pytest.mark.parametrize("name", CAUSAL)
def test_looking_back_is_no_finding(name: str) -> None:
    assert shifts(CAUSAL[name], torch.randn(1, 2, 48)) == []


OFF: dict[str, tuple[nn.Module, dict[str, int]]] = {
    "the wrong end is chomped": (
        temporal(3, lambda y, p: y[:, :, p:], 1),
        {"misaligned-merge": 1, "shifted-output": 1},
    ),
    "half a pixel": (
        Net(lambda net, x: x + net.a(F.pad(x, (1, 2))), a=nn.Conv1d(2, 2, 4)),
        {"misaligned-merge": 1, "half-pixel-shift": 1, "shifted-output": 1},
    ),
    "late by one": (
        Net(lambda net, x: x + net.a(F.pad(x, (3, 0)))[..., :-1], a=nn.Conv1d(2, 2, 3)),
        {"misaligned-merge": 1, "shifted-output": 1},
    ),
    "half a pixel and a centred one": (
        Net(
            lambda net, x: net.a(x) + net.b(F.pad(x, (0, 1))), a=nn.Conv1d(2, 2, 3, padding=1), b=nn.Conv1d(2, 2, 2)
        ),
        {"misaligned-merge": 1, "half-pixel-shift": 1},
    ),
    "causal and centred": (
        Net(lambda net, x: net.a(x) + net.b(x), a=nn.Conv1d(2, 2, 3, padding=1), b=causal(3, 1)),
        {"misaligned-merge": 1},
    ),
    "strided": (
        Net(lambda net, x: net.a(x) + F.avg_pool1d(x, 2), a=nn.Conv1d(2, 2, 3, 2, 1)),
        {"misaligned-merge": 1},
    ),
    "strided and back": (
        Net(lambda net, x: F.interpolate(net.a(x), scale_factor=2, mode="linear"), a=nn.Conv1d(2, 2, 3, 2, 1)),
        {"shifted-output": 1},
    ),
    "strided without padding and back": (
        Net(lambda net, x: F.interpolate(net.a(x), scale_factor=8), a=nn.Conv1d(2, 2, 1, 8)),
        {"shifted-output": 1},
    ),
    "strided without padding beside what is not": (
        Net(lambda net, x: x + F.interpolate(net.a(x), scale_factor=8), a=nn.Conv1d(2, 2, 1, 8)),
        {"misaligned-merge": 1},
    ),
    "cells that are spread again": (
        Net(lambda net, x: net.up(net.a(x)), a=nn.Conv1d(2, 2, 1, 4), up=nn.ConvTranspose1d(2, 2, 4, 4)),
        {"shifted-output": 1},
    ),
    "chomped in the middle": (
        Net(lambda net, x: net.a(x)[..., 2:-1], a=nn.Conv1d(2, 2, 4, padding=3)),
        {"half-pixel-shift": 1, "shifted-output": 1},
    ),
    "read unchomped, too": (
        Net(lambda net, x: (net.b(net.a(x))[..., :-3], net.b(net.a(x))), a=nn.Conv1d(2, 2, 4, padding=3), b=nn.Tanh()),
        {"half-pixel-shift": 1},
    ),
}


@pytest.mark.parametrize("name", OFF)
def test_what_is_off_is_found(name: str) -> None:
    model, wanted = OFF[name]
    found = [finding.code for finding in shifts(model, torch.randn(1, 2, 48))]
    assert {code: found.count(code) for code in set(found)} == wanted


def test_images_look_back_by_mistake() -> None:
    model = Net(lambda net, x: x + net.a(F.pad(x, (2, 0, 2, 0))), a=nn.Conv2d(2, 2, 3))
    assert [found.code for found in shifts(model, torch.randn(1, 2, 24, 24))] == ["misaligned-merge", "shifted-output"]


class Branch(nn.Module):
    """A window of a signal, behind padding and before a crop."""

    def __init__(self, kernel: int, dilation: int, pads: tuple[int, int], crops: tuple[int, int]) -> None:
        super().__init__()
        self.kernel, self.dilation, self.pads, self.crops = kernel, dilation, pads, crops
        self.reach = dilation * (kernel - 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv1d(F.pad(x, self.pads), torch.ones(1, 1, self.kernel, dtype=x.dtype), dilation=self.dilation)
        return y[..., self.crops[0] : y.shape[-1] - self.crops[1]]


@st.composite
def branches(draw: st.DrawFn) -> Branch:
    """As long as the input, or shorter by three."""
    kernel, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 2))
    reach, front, back = dilation * (kernel - 1), draw(st.integers(0, 2)), draw(st.integers(0, 2))
    total = reach + front + back
    lo = draw(st.sampled_from(sorted({total // 2, min(reach, total), 0, total})))
    return Branch(kernel, dilation, (lo, total - lo), (front, back))


N = 40


def seen(branch: Branch, less: int) -> tuple[Fraction, int, bool, Fraction]:
    """Of what output 0 reads the centre and the newest sample; whether the last reads behind the end; and the newest
    sample again if the window looks back, else the centre. As gradients say of an output in the middle.
    """
    weights = gradients(lambda x: branch(x)[..., less:], N)
    i = len(weights) // 2
    read = [int(j) - i for j in (weights[i].abs() > NOISE).nonzero()]
    newest = max(read)
    centre = Fraction(min(read) + newest, 2)
    looks_back = branch.pads[0] == branch.reach
    return centre, newest, len(weights) - 1 + newest > N - 1, Fraction(newest) if looks_back else centre


@given(branches(), branches(), st.integers(0, 2))
def test_merges_of_signals(a: Branch, b: Branch, less: int) -> None:
    """Quiet where centres agree, or newest samples do and the windows look back, or none looks behind the end."""
    model = Net(lambda net, x: net.a(x)[..., less:] + net.b(x)[..., less:], a=a, b=b)
    one, other = seen(a, less), seen(b, less)
    by_design = one[1] == other[1] and (one[3] == other[3] or not (one[2] or other[2]))
    found = pr.analyze(model, example_inputs=torch.zeros(1, 1, N, dtype=torch.float64)).of("misaligned-merge")
    assert len(found) == (one[0] != other[0] and not by_design)
