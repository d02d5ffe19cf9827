"""Output stride: what it rewrites, into what, what it leaves alone and why; the grid, checked without the engine."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from expected import FEW, TIGHT, Row, TensorflowSame, image
from hypothesis import given
from hypothesis import strategies as st
from strategies import NetSpec, nets
from torch import Tensor, nn

import padrewrite as pr
from padrewrite import feasibility
from padrewrite.errors import NoEffectError, PassError
from padrewrite_passes import OutputStride

NAME = "output-stride"


def unit(channels: int, kernel: Any = 3, stride: Any = 1, **options: Any) -> nn.Sequential:
    sizes = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    window = {"padding": tuple(k // 2 for k in sizes), **options}
    rank = len(sizes)
    conv, norm = getattr(nn, f"Conv{rank}d"), getattr(nn, f"BatchNorm{rank}d")
    return nn.Sequential(conv(channels, channels, kernel, stride, **window), norm(channels), nn.ReLU())


def settled(model: nn.Module) -> nn.Module:
    """In eval mode and float64, its batch norms with statistics of their own."""
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(norm.running_mean, -0.3, 0.3)  # pyright: ignore
            nn.init.uniform_(norm.running_var, 0.5, 1.5)  # pyright: ignore
    return model.double().eval()


def spec_of(model: nn.Module) -> Callable[..., Any]:
    return lambda *sizes: image(*sizes, channels=next(model.parameters()).shape[1])


def shown(spec: Mapping[str, Any]) -> str:
    """``k3 s2 d1 p1``; numbers that differ between the axes as in ``p1x0``, uneven padding as in ``p0:1``."""
    pads = [f"{lo}" if lo == hi else f"{lo}:{hi}" for lo, hi in spec["padding"]]
    fields = {"k": spec["kernel_size"], "s": spec["stride"], "d": spec["dilation"], "p": pads}
    values = {name: [str(v) for v in given] for name, given in fields.items()}
    return " ".join(name + (v[0] if len(set(v)) == 1 else "x".join(v)) for name, v in values.items())


def table(plan: pr.Plan | pr.Report) -> list[str]:
    """A line for each operation that changes."""
    lines = [d for d in plan.decisions if d.status == "rewritten"]
    return [f"{d.site}: {shown(d.before)} -> {shown(d.after)}, {d.contract}" for d in lines]


def assert_on_grid(old: nn.Module, new: nn.Module, factors: Sequence[int], *inputs: Tensor) -> None:
    """``new[..., ::f] == old`` in float64, for the one output of both."""
    for x in inputs:
        with torch.no_grad():
            want, got = old(x), new(x)
        on_grid = got[(..., *(slice(None, None, f) for f in factors))]
        assert on_grid.shape == want.shape
        assert want.std() > 1e-3
        assert (on_grid - want).abs().max() <= 1e-10 * want.abs().max()


@dataclass(frozen=True)
class Written:
    """A small network, the output stride it is brought to, and what that must change."""

    model: Callable[[], nn.Module]
    stride: int
    sizes: tuple[tuple[int, ...], ...]
    """To record with, and others; odd, even and unlike each other."""
    factors: tuple[int, ...]
    lines: tuple[str, ...]


PLANE = ((33, 38), (32, 37), (21, 50))

WRITTEN = {
    "stride first": Written(
        lambda: nn.Sequential(unit(3, 3, 2), unit(3), unit(3, 3, 2), unit(3), unit(3, 3, 2), unit(3)),
        2,
        PLANE,
        (4, 4),
        (
            "2.0: k3 s2 d1 p1 -> k3 s1 d1 p1, grid(2)",
            "3.0: k3 s1 d1 p1 -> k3 s1 d2 p2, grid(2)",
            "4.0: k3 s2 d1 p1 -> k3 s1 d2 p2, grid(4)",
            "5.0: k3 s1 d1 p1 -> k3 s1 d4 p4, grid(4)",
        ),
    ),
    "stride last": Written(
        lambda: nn.Sequential(unit(3), unit(3, 3, 2), unit(3), unit(3, 3, 2), nn.Conv2d(3, 2, 1)),
        1,
        PLANE,
        (4, 4),
        (
            "1.0: k3 s2 d1 p1 -> k3 s1 d1 p1, grid(2)",
            "2.0: k3 s1 d1 p1 -> k3 s1 d2 p2, grid(2)",
            "3.0: k3 s2 d1 p1 -> k3 s1 d2 p2, grid(4)",
        ),
    ),
    "kernels and strides that differ between the axes": Written(
        lambda: nn.Sequential(unit(3, (1, 5), (1, 3)), unit(3, (5, 3), (2, 1)), unit(3, (3, 1)), unit(3, (1, 3))),
        1,
        PLANE,
        (2, 3),
        (
            "0.0: k1x5 s1x3 d1 p0x2 -> k1x5 s1 d1 p0x2, grid(1x3)",
            "1.0: k5x3 s2x1 d1 p2x1 -> k5x3 s1 d1x3 p2x3, grid(2x3)",
            "2.0: k3x1 s1 d1 p1x0 -> k3x1 s1 d2x1 p2x0, grid(2x3)",
            "3.0: k1x3 s1 d1 p0x1 -> k1x3 s1 d1x3 p0x3, grid(2x3)",
        ),
    ),
    "even kernels, same padding": Written(
        lambda: nn.Sequential(unit(3, 2, 2), unit(3, (4, 2), padding="same"), unit(3, 4, padding=0, dilation=2)),
        1,
        PLANE,
        (2, 2),
        (
            "0.0: k2 s2 d1 p1 -> k2 s1 d1 p1, grid(2)",
            "1.0: k4x2 s1 d1 p1:2x0:1 -> k4x2 s1 d2 p2:4x0:2, grid(2)",
            "2.0: k4 s1 d2 p0 -> k4 s1 d4 p0, grid(2)",
        ),
    ),
    "a stride lost in part": Written(
        lambda: nn.Sequential(unit(3, 7, 4), unit(3, 3, 4), unit(3)),
        8,
        ((65, 70), (64, 61)),
        (2, 2),
        (
            "1.0: k3 s4 d1 p1 -> k3 s2 d1 p1, grid(2)",
            "2.0: k3 s1 d1 p1 -> k3 s1 d2 p2, grid(2)",
        ),
    ),
    "1-D": Written(
        lambda: nn.Sequential(unit(3, (5,), 3), unit(3, (2,), 2), unit(3, (3,))),
        1,
        ((50,), (49,), (36,)),
        (6,),
        (
            "0.0: k5 s3 d1 p2 -> k5 s1 d1 p2, grid(3)",
            "1.0: k2 s2 d1 p1 -> k2 s1 d3 p3, grid(6)",
            "2.0: k3 s1 d1 p1 -> k3 s1 d6 p6, grid(6)",
        ),
    ),
    "3-D": Written(
        lambda: nn.Sequential(unit(3, (3, 3, 3), (1, 2, 2)), unit(3, (2, 3, 1)), unit(3, (3, 3, 3), 2)),
        2,
        ((8, 13, 12), (5, 12, 17)),
        (1, 2, 2),
        (
            "2.0: k3 s2 d1 p1 -> k3 s2x1x1 d1 p1, grid(1x2x2)",
        ),
    ),
    "max pool": Written(
        lambda: nn.Sequential(unit(3, 3, 2), nn.Conv2d(3, 3, 1), nn.MaxPool2d(3, 2, 1), unit(3), nn.MaxPool2d(2, 1)),
        2,
        PLANE,
        (2, 2),
        (
            "3.0: k3 s1 d1 p1 -> k3 s1 d2 p2, grid(2)",
            "2: k3 s2 d1 p1 -> k3 s1 d1 p1, grid(2)",
            "4: k2 s1 d1 p0 -> k2 s1 d2 p0, grid(2)",
        ),
    ),
    "max pool with more padding than torch allows": Written(
        lambda: nn.Sequential(unit(3, 3, 2), nn.Conv2d(3, 3, 1), nn.MaxPool2d((3, 2), (2, 1), (1, 0)), unit(3)),
        1,
        PLANE,
        (4, 2),
        (
            "0.0: k3 s2 d1 p1 -> k3 s1 d1 p1, grid(2)",
            "3.0: k3 s1 d1 p1 -> k3 s1 d4x2 p4x2, grid(4x2)",
            "2: k3x2 s2x1 d1 p1x0 -> k3x2 s1 d2 p2x0, grid(4x2)",
        ),
    ),
    "average pools, padding counted and not": Written(
        lambda: nn.Sequential(
            unit(3, 3, 2),
            nn.AvgPool2d(3, 1, 1, count_include_pad=False),
            nn.AvgPool2d((2, 3), 2, (1, 1)),
            nn.AvgPool2d(2, 1),
            unit(3),
        ),
        1,
        PLANE,
        (4, 4),
        (
            "0.0: k3 s2 d1 p1 -> k3 s1 d1 p1, grid(2)",
            "4.0: k3 s1 d1 p1 -> k3 s1 d4 p4, grid(4)",
            "1: k3 s1 d1 p1 -> k3 s1 d2 p2, grid(2)",
            "2: k2x3 s2 d1 p1 -> k2x3 s1 d2 p2, grid(4)",
            "3: k2 s1 d1 p0 -> k2 s1 d4 p0, grid(4)",
        ),
    ),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_before_and_after(name: str) -> None:
    case = WRITTEN[name]
    model = settled(case.model())
    x, *others = (image(*sizes) for sizes in case.sizes)
    new = pr.transform(model, [OutputStride(case.stride)], example_inputs=x, verify="full")
    assert tuple(table(pr.report(new))) == case.lines
    assert_on_grid(model, new, case.factors, x, *others)
    grid = [e for e in pr.verify(new).evidence if e.contract.startswith("grid")]
    assert {e.site for e in grid} >= {"(output 0)"}
    assert not any(e.vacuous or not e.ok for e in grid)
