"""Redirected calls: every machine that runs a forward, and forwards that take another path than when recorded."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from plain import far, partial
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import padrewrite as pr
from padrewrite.errors import SiteMismatch

from .nets import PARTIAL, Functional, picture


class Path(nn.Module):
    """Another path in train mode than in eval mode; ``computed`` kernels are no parameters."""

    def __init__(self, train: str, evaluate: str, computed: bool = False) -> None:
        super().__init__()
        self.a, self.b = (nn.Parameter(torch.randn(3, 3, 3, 3) * 0.2) for _ in range(2))
        self.paths, self.computed = {True: train, False: evaluate}, computed

    def forward(self, x: Tensor) -> Tensor:
        kernels = {"a": self.a, "b": self.b}
        kernels = {k: w * 2 for k, w in kernels.items()} if self.computed else kernels
        x = x + 1
        for step in self.paths[self.training]:
            x = F.conv2d(x, kernels[step], padding=1).tanh()
        return x


def with_partial(net: Path, x: Tensor, kernels: set[str]) -> Tensor:
    """What ``net`` computes in its present mode where the calls with these kernels are partial."""
    x = x + 1
    for step in net.paths[net.training]:
        weight = getattr(net, step) * (2 if net.computed else 1)
        x = (partial(x, weight, None, 1, 1) if step in kernels else F.conv2d(x, weight, padding=1)).tanh()
    return x


def test_the_recorded_path() -> None:
    net = Path("ab", "ab").eval()
    new = pr.transform(net, PARTIAL, example_inputs=picture(), include="#conv2d.1")
    assert far(new(picture(height=7)), with_partial(net, picture(height=7), {"b"})) < 1e-5


DRIFTS = [
    ("b", None),
    ("ba", None),
    ("b", "#conv2d.0"),
    ("aba", None),
    ("bab", "#conv2d.1"),
    ("ba", "#conv2d.1"),
]


@pytest.mark.parametrize("computed", [False, True])
@pytest.mark.parametrize(("train", "include"), DRIFTS)
def test_drift_is_never_guessed_over(train: str, include: str | None, computed: bool) -> None:
    """Recorded as "ab". Another path raises, or treats each kernel as it was decided; eval mode stays right."""
    net = Path(train, "ab", computed).eval()
    if computed and include is not None:
        plan = pr.plan(net, PARTIAL, example_inputs=picture(), include=include, allow_no_effect=True)
        assert plan.decisions[int(include[-1])].code == "ambiguous-call"
        return
    new = pr.transform(net, PARTIAL, example_inputs=picture(), include=include)
    kernels = {None: {"a", "b"}, "#conv2d.0": {"a"}, "#conv2d.1": {"b"}}[include]
    try:
        got = new.train()(picture())
    except SiteMismatch as error:
        assert "plan again" in str(error)
    else:
        assert far(got, with_partial(net.train(), picture(), kernels)) < 1e-5
    assert far(new.eval()(picture()), with_partial(net.eval(), picture(), kernels)) < 1e-5


def test_another_kernel_in_a_redirected_call_is_an_error() -> None:
    net = Path("ba", "ab").eval()
    new = pr.transform(net, PARTIAL, example_inputs=picture())
    with pytest.raises(SiteMismatch, match=r"#conv2d.0.*another weight.*plan again"):
        new.train()(picture())


def test_another_stride_is_an_error() -> None:
    class Strided(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(3, 3, 3, 3))

        def forward(self, x: Tensor, stride: int = 1) -> Tensor:
            return F.conv2d(x, self.kernel, stride=stride, padding=1)

    new = pr.transform(Strided(), PARTIAL, example_inputs=picture())
    with pytest.raises(SiteMismatch, match=r"#conv2d.0.*stride"):
        new(picture(), 2)


class Blocks(nn.Module):
    """Functional convolutions inside a method that may be checkpointed."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(3, 3, 3, 3) * 0.2)
        self.b = nn.Parameter(torch.randn(3, 3, 3, 3) * 0.2)
        self.how = how

    def block(self, x: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(x, self.a, padding=1).tanh(), self.b, padding=1).tanh()

    def forward(self, x: Tensor) -> Any:
        if self.how == "plain":
            return self.block(x)
        return checkpoint(self.block, x, use_reentrant=self.how == "reentrant")


@pytest.mark.parametrize("how", ["non-reentrant", "reentrant"])
@pytest.mark.parametrize("nested", [False, True])
def test_checkpointed_in_train_mode(how: str, nested: bool) -> None:
    """The recomputation in backward runs the same rewritten calls, or the plan refuses them with a reason."""
    gradients: list[list[Tensor]] = []
    for one in (how, "plain"):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Identity(), Blocks(one)) if nested else Blocks(one)
        plan = pr.plan(net.train(), PARTIAL, example_inputs=picture(), allow_no_effect=True)
        if one == how and all(d.status == "refused" for d in plan.decisions):
            return
        new = pr.apply(net, plan)
        x = picture().requires_grad_()
        new(x).square().sum().backward()
        assert x.grad is not None
        gradients.append([x.grad, *(p.grad for p in new.parameters() if p.grad is not None)])
    assert len(gradients[0]) == len(gradients[1]) == 3
    for got, wanted in zip(*gradients):
        assert far(got, wanted) < 1e-5


class CheckpointedBlock(nn.Module):
    """A redirected module that is checkpointed by its parent as a whole."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.block, self.how = Blocks("plain"), how

    def forward(self, x: Tensor) -> Any:
        return (
            self.block(x)
            if self.how == "plain"
            else checkpoint(self.block, x, use_reentrant=self.how == "reentrant")
        )


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
@pytest.mark.parametrize("how", ["non-reentrant", "reentrant"])
def test_checkpointed_by_the_parent(how: str) -> None:
    gradients: list[Tensor] = []
    for one in (how, "plain"):
        torch.manual_seed(0)
        new: Any = pr.transform(CheckpointedBlock(one).train(), PARTIAL, example_inputs=picture())
        new(picture().requires_grad_()).square().sum().backward()
        gradients.append(new.block.a.grad)
    assert far(*gradients) < 1e-5


def test_signature_survives() -> None:
    """Exporters, trainers and loggers read the names of forward's arguments."""
    net = Functional()
    new = pr.transform(net, PARTIAL, example_inputs=picture())
    assert list(inspect.signature(new.forward).parameters) == ["image", "scale"]
    dynamic = {"image": {2: torch.export.Dim("h", min=4, max=64)}, "scale": None}
    exported = torch.export.export(new, (picture(), 2.0), dynamic_shapes=dynamic).module()
    x = picture(height=20)
    assert far(exported(x, 2.0), partial(x, net.kernel, None, 1, 1) * 2) < 1e-5


def test_keyword_arguments_and_hooks_once() -> None:
    net = Functional()
    seen: list[str] = []
    net.register_forward_pre_hook(lambda m, a, k: seen.append("pre"), with_kwargs=True)  # pyright: ignore
    net.register_forward_hook(lambda m, a, o: seen.append("post"))  # pyright: ignore
    new = pr.transform(net, PARTIAL, example_inputs={"image": picture(), "scale": 0.5})
    seen.clear()
    assert (
        far(new(scale=3.0, image=picture(batch=1)), partial(picture(batch=1), net.kernel, None, 1, 1) * 3)
        < 1e-5
    )
    assert seen == ["pre", "post"]


def test_two_owners_one_in_the_other() -> None:
    """A redirected root around a redirected block: each counts its own calls right."""

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(3, 3, 3, 3) * 0.2)
            self.block, self.layer = Blocks("plain"), nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = F.conv2d(self.layer(x), self.kernel, padding=1)
            return F.conv2d(self.block(x), self.kernel, padding=1)

    net = Outer()
    sites = pr.record(net, example_inputs=picture()).sites
    assert list(sites) == ["layer", "#conv2d.0", "block#conv2d.0", "block#conv2d.1", "#conv2d.1"]

    def goal(x: Tensor) -> Tensor:
        x = partial(partial(x, net.layer.weight, net.layer.bias, 1, 1), net.kernel, None, 1, 1)
        x = partial(partial(x, net.block.a, None, 1, 1).tanh(), net.block.b, None, 1, 1).tanh()
        return partial(x, net.kernel, None, 1, 1)

    new = pr.transform(net, PARTIAL, example_inputs=picture())
    assert far(new(picture(height=8)), goal(picture(height=8))) < 1e-5


@pytest.mark.parametrize("direct", ["forward", "_conv_forward"])
def test_a_layer_whose_call_is_bypassed(direct: str) -> None:
    """``conv.forward(x)`` skips hooks; the call is found, and rewritten once, not twice."""

    class Bypass(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            c = self.conv
            return c(x) + (c.forward(x) if direct == "forward" else c._conv_forward(x, c.weight, c.bias))

    net = Bypass()
    new = pr.transform(net, PARTIAL, example_inputs=picture())
    goal = 2 * partial(picture(), net.conv.weight, net.conv.bias, 1, 1)
    assert far(new(picture()), goal) < 1e-5


@pytest.mark.parametrize("between", ["x * 1", "kernel * 1"])
def test_a_kernel_computed_right_before_the_call(between: str) -> None:
    """Weight standardisation: the graph node before the convolution makes its weight, not its input."""

    class Computed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(4, 3, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            if between == "x * 1":
                kernel = self.kernel * 1
                x = x * 1
            else:
                kernel = self.kernel * 1
            return F.conv2d(x, kernel, padding=1)

    net = Computed()
    new = pr.transform(net, PARTIAL, example_inputs=picture())
    assert far(new(picture(height=8)), partial(picture(height=8), net.kernel, None, 1, 1)) < 1e-5
