"""Redirected pools: forwards that take another path, machines that run a forward, and what is left of the layer."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from plain import far
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import padrewrite as pr
from padrewrite.errors import SiteMismatch

from .nets import picture

FINEST = ["output-stride{stride=1}"]


class Stem(nn.Module):
    """A pool as a layer, one as a function, and two that stay; every one reads negative values too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 2, 3)
        self.same = nn.AvgPool2d(3, 1, 1)

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        x = F.max_pool2d(self.same(self.conv(x)) - 1, 3, 1, 1)
        return self.head(F.avg_pool2d(self.pool(x), 2, 1)) * scale


def finer(net: Stem, x: Tensor) -> Tensor:
    """What ``Stem`` computes without strides, said with torch's own calls."""
    x = F.max_pool2d(net.same(net.conv(x)) - 1, 3, 1, 1)
    x = F.max_pool2d(x, 3, 1, 1)
    ones = torch.ones(4, 1, 2, 2, dtype=x.dtype)
    x = F.conv2d(x, ones, dilation=2, groups=4) / 4
    return F.conv2d(x, net.head.weight, net.head.bias, dilation=2)


def rewritten() -> tuple[Stem, Any]:
    torch.manual_seed(2)
    model = Stem().eval()
    return model, pr.transform(model, FINEST, example_inputs=picture(), verify="full")


def test_what_is_computed() -> None:
    model, new = rewritten()
    for x in (picture(), picture(3, 8, 21)):
        assert far(new(x), finer(model, x)) < 1e-5
        assert far(new(x, scale=2.0), 2 * finer(model, x)) < 1e-5
        assert torch.allclose(new(x)[..., ::2, ::2], model(x), atol=1e-5)


def test_the_layer_keeps_its_class_and_attributes() -> None:
    """What prints is the layer as it was built: the call is redirected, and only in its own forward."""
    model, new = rewritten()
    assert isinstance(new, Stem)
    assert isinstance(new.pool, nn.MaxPool2d)
    assert (new.pool.kernel_size, new.pool.stride, new.pool.padding) == (3, 2, 1)
    assert type(new.same) is nn.AvgPool2d
    assert type(model.pool) is nn.MaxPool2d
    assert [d.site for d in pr.report(new).decisions if d.status == "rewritten"] == ["head", "pool", "#avg_pool2d.0"]


def test_hooks_see_the_new_pool() -> None:
    model = Stem().eval()
    seen: list[torch.Size] = []
    model.pool.register_forward_hook(lambda m, args, out: seen.append(out.shape[2:]))
    new = pr.transform(model, FINEST, example_inputs=picture())
    seen.clear()
    new(picture())
    assert seen == [(11, 13)]


@pytest.mark.parametrize("way", ["pickle", "deepcopy"])
def test_copies(way: str) -> None:
    _, new = rewritten()
    other = pickle.loads(pickle.dumps(new)) if way == "pickle" else copy.deepcopy(new)
    assert torch.equal(other(picture()), new(picture()))
    assert pr.verify(other).ok


def test_revert() -> None:
    model, new = rewritten()
    assert repr(pr.revert(new)) == repr(model)
    assert [type(m) for m in new.modules()] == [type(m) for m in model.modules()]
    assert torch.equal(new(picture()), model(picture()))


def test_gradients_are_those_of_the_finer_network() -> None:
    model, new = rewritten()
    found: list[Tensor] = []
    for run in (new, lambda x: finer(model, x)):
        x = picture().requires_grad_()
        run(x).square().sum().backward()
        assert x.grad is not None
        found.append(x.grad)
    assert far(*found) < 1e-5


@pytest.mark.compile
def test_compiled_without_a_break() -> None:
    _, new = rewritten()
    eager = torch.compile(new, backend="eager", fullgraph=True)
    for x in (picture(), picture(1, 9, 30)):
        assert torch.equal(eager(x), new(x))


@pytest.mark.compile
def test_inductor() -> None:
    _, new = rewritten()
    compiled = torch.compile(new, fullgraph=True)
    with torch.no_grad():
        assert far(compiled(picture()), new(picture())) < 1e-5


@pytest.mark.compile
def test_export() -> None:
    _, new = rewritten()
    dynamic = torch.export.Dim.DYNAMIC
    program = torch.export.export(new, (picture(),), dynamic_shapes=({2: dynamic, 3: dynamic},)).module()
    assert far(program(picture(2, 20, 9)), new(picture(2, 20, 9))) < 1e-6


class Drifting(nn.Module):
    """In train mode the pools come in another number or with other windows than in eval mode."""

    def __init__(self, train: str, evaluate: str) -> None:
        super().__init__()
        self.conv, self.paths = nn.Conv2d(3, 3, 3, padding=1), {True: train, False: evaluate}

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        for step in self.paths[self.training]:
            x = F.max_pool2d(x, 2, 2) if step == "a" else F.max_pool2d(x, 3, 1, 1)
        return x


@pytest.mark.parametrize("train", ["", "b", "ba", "aab", "abb"])
def test_drift_is_never_guessed_over(train: str) -> None:
    """Recorded as "ab": only the count tells one pool from another."""
    new = pr.transform(Drifting(train, "ab").eval(), FINEST, example_inputs=picture())
    with pytest.raises(SiteMismatch, match=r"#max_pool2d.*plan again"):
        new.train()(picture())
    assert new.eval()(picture()).shape[2:] == (10, 12)


class Again(nn.Module):
    """One pool layer at two places."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool = nn.Conv2d(3, 3, 3, padding=1), nn.MaxPool2d(3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(F.max_pool2d(self.pool(self.conv(x)), 2))


def test_a_pool_called_in_two_places() -> None:
    """Its second call needs a rate that its first does not: refused whole. Where both need the same, it is done."""
    plan = pr.plan(Again(), FINEST, example_inputs=picture(), allow_no_effect=True)
    assert {(d.site, d.status, d.code) for d in plan.decisions if d.site != "conv"} == {
        ("pool@1", "refused", "shared-module"),
        ("#max_pool2d.0", "refused", "shared-module"),
    }
    pool = nn.MaxPool2d(3, 1, 1)
    model = nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1), pool, nn.ReLU(), pool).eval()
    new = pr.transform(model, FINEST, example_inputs=picture(), verify="full")
    assert torch.allclose(new(picture())[..., ::2, ::2], model(picture()), atol=1e-6)


class Recomputed(nn.Module):
    """Pools inside a function that is run again in backward."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.conv, self.reentrant = nn.Conv2d(3, 3, 3, padding=1), reentrant

    def block(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 2).tanh()

    def forward(self, x: Tensor) -> Any:
        return checkpoint(self.block, self.conv(x), use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed(reentrant: bool) -> None:
    """Refused, or the recomputation pools as the first run did."""
    model = Recomputed(reentrant).train()
    plan = pr.plan(model, FINEST, example_inputs=picture(), allow_no_effect=True)
    if not plan.edits:
        assert {d.status for d in plan.decisions} <= {"kept", "refused"}
        return
    new = pr.apply(model, plan)
    found: list[Tensor] = []
    for run in (new, lambda x: F.max_pool2d(model.conv(x), 2, 1).tanh()):
        x = picture().requires_grad_()
        run(x).square().sum().backward()
        assert x.grad is not None
        found.append(x.grad)
    assert far(*found) < 1e-5


def test_other_passes_beside_a_redirected_pool() -> None:
    """A second transform leaves it, a third takes its convolutions further, and one revert takes all back."""
    model, new = rewritten()
    twice = pr.transform(new, ["partial-padding"], example_inputs=picture())
    assert [d.site for d in pr.report(twice).plans[-1].decisions if d.status == "rewritten"] == ["conv"]
    assert pr.verify(twice).ok
    together = pr.transform(model, [*FINEST, "partial-padding"], example_inputs=picture())
    assert torch.equal(twice(picture()), together(picture()))
    assert torch.equal(pr.revert(twice)(picture()), model(picture()))
