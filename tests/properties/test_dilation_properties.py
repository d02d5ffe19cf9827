"""Output stride, hybrid dilation and partial padding together, on networks drawn at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from formulas.supports import has_no_hole
from hypothesis import event, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import padrewrite as pr
from padrewrite.checks.naive import naive_conv

FEW = settings(max_examples=max(5, settings.default.max_examples // 5))


@dataclass(frozen=True)
class Stages:
    """A backbone: units of one 3x3 convolution each, plain or residual, some with a stride and some behind a pool."""

    units: tuple[tuple[str, int], ...]
    """(kind, stride): plain, residual, or max or average for a pool that carries the stride."""
    size: tuple[int, int]
    seed: int

    def build(self) -> Backbone:
        torch.manual_seed(self.seed)
        return Backbone(self).double().eval()

    def image(self, more: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed + more)
        return torch.randn(1, 2, *(n + more for n in self.size), generator=generator, dtype=torch.float64)


class Backbone(nn.Module):
    """The network of ``Stages``."""

    def __init__(self, spec: Stages) -> None:
        super().__init__()
        self.spec = spec
        strides = [1 if kind in POOLS else stride for kind, stride in spec.units]
        self.convs = nn.ModuleList(nn.Conv2d(2, 2, 3, stride, 1) for stride in strides)
        self.beside = nn.ModuleList(nn.Conv2d(2, 2, 1, stride) for stride in strides)

    def forward(self, x: Tensor) -> Tensor:
        for (kind, stride), conv, beside in zip(self.spec.units, self.convs, self.beside):
            if kind == "max":
                x = F.max_pool2d(x, 3, stride, 1)
            elif kind == "average":
                x = F.avg_pool2d(x, 2, stride, 1)
            new = conv(x).relu()
            x = new + beside(x) if kind == "residual" else new
        return x


POOLS = {"max": (3, float("-inf")), "average": (2, 0.0)}
"""Kernel, and what its padding holds; one pixel of it on each side."""


@st.composite
def stages(draw: st.DrawFn) -> Stages:
    kinds, strides = st.sampled_from(["plain", "plain", "residual", *POOLS]), st.sampled_from([1, 1, 2])
    units = draw(st.lists(st.tuples(kinds, strides), max_size=3))
    last = draw(st.lists(st.sampled_from([("plain", 1), ("residual", 1)]), min_size=1, max_size=3))
    size = draw(st.tuples(st.integers(9, 21), st.integers(9, 21)))
    return Stages((("plain", 2), *units, *last), size, draw(st.integers(0, 2**31)))


def rates_without_strides(spec: Stages) -> tuple[list[int], list[int]]:
    """Of each unit, once no stride is left: the rate of what it reads, and that of its 3x3 convolution."""
    reads, convs, lost = list[int](), list[int](), 1
    for kind, stride in spec.units:
        reads.append(lost)
        convs.append(lost * stride if kind in POOLS else lost)
        lost *= stride
    return reads, convs


def runs(spec: Stages) -> list[list[int]]:
    """Convolutions that follow each other without a pool between them."""
    found: list[list[int]] = []
    for i, (kind, _) in enumerate(spec.units):
        if kind in POOLS or not found:
            found.append([])
        found[-1].append(i)
    return found


def naive_pool(kind: str, rate: int, x: Tensor) -> Tensor:
    """A pool of stride 1 at a rate, tap by tap."""
    kernel, fill = POOLS[kind]
    padded = F.pad(x, (rate,) * 4, value=fill)
    height, width = (n - rate * (kernel - 1) for n in padded.shape[2:])
    offsets = range(0, rate * kernel, rate)
    taps = torch.stack([padded[..., a : a + height, b : b + width] for a in offsets for b in offsets])
    return taps.amax(0) if kind == "max" else taps.mean(0)


def naively(model: Backbone, reads: list[int], rates: list[int], x: Tensor) -> Tensor:
    """The network without strides, its convolutions partial and at ``rates``."""
    for i, (kind, _) in enumerate(model.spec.units):
        conv: Any = model.convs[i]
        beside: Any = model.beside[i]
        x = naive_pool(kind, reads[i], x) if kind in POOLS else x
        pads, dilation = ((rates[i],) * 2,) * 2, (rates[i],) * 2
        out = naive_conv(x, conv.weight, conv.bias, dilation=dilation, padding=pads, partial="mean")
        assert isinstance(out, Tensor)
        aside = torch.einsum("oi,nihw->nohw", beside.weight[..., 0, 0], x) + beside.bias.reshape(1, -1, 1, 1)
        x = out.relu() + aside if kind == "residual" else out.relu()
    return x


@FEW
@given(stages())
def test_three_passes_in_one_call(spec: Stages) -> None:
    """Rates by hand, then without holes; every value by the naive reference; keys, checkpoints, JSON, a second run."""
    model, x = spec.build(), spec.image()
    passes = ["output-stride{stride=1}", "hybrid-dilation", "partial-padding"]
    plan = pr.plan(model, passes, example_inputs=x, allow_no_effect=True)
    if any(d.status == "refused" for d in plan.decisions):
        event("refused")
        assert {d.code for d in plan.decisions if d.status == "refused"} == {"blind-window"}
        return
    new: Any = pr.apply(model, plan)
    reads, fine = rates_without_strides(spec)
    rates = [conv.dilation[0] for conv in new.convs]
    changed = [i for i, (a, b) in enumerate(zip(fine, rates)) if a != b]
    event("without holes" if changed else "no chain that leaves holes")
    for run in runs(spec):
        new_rates, dilated = tuple(rates[i] for i in run), [i for i in run if fine[i] > 1]
        assert has_no_hole(new_rates if set(run) & set(changed) else (1, *new_rates), 3) or len(dilated) < 2
    assert {d.site for d in plan.decisions if d.pass_name == "hybrid-dilation" and d.status == "rewritten"} == {
        f"convs.{i}" for i in changed
    }
    for more in (0, 1, 6):
        image = spec.image(more)
        torch.testing.assert_close(new(image), naively(model, reads, rates, image), rtol=1e-10, atol=1e-10)
    assert list(new.state_dict()) == list(model.state_dict())
    new.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(pr.apply(spec.build(), pr.Plan.from_json(plan.to_json()))(x), new(x))
    assert not pr.plan(new, passes, example_inputs=x, allow_no_effect=True).edits
    assert torch.equal(pr.revert(new)(x), model(x))
