"""Exact supports against gradients of single output positions."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from strategies import NetSpec, nets
from torch import Tensor, nn

import padrewrite as pr
from analyses.oracles import NOISE, flat_net, flatten_weights, sensitivities, tensors_of, without_cancelling
from padrewrite.analyses import support
from padrewrite.analyses.layout import Layout, Origin, read_layout
from padrewrite.analyses.reach import count, covers, members, union
from padrewrite.analyses.support import Support, Supports, positions, reached
from padrewrite.fuzzing.drawing import KINDS
from padrewrite.fuzzing.networks import AdaptivePool, GlobalPool

ALL = tuple(kind for kind in KINDS if kind != "symmetric_conv")
SAME = ("symmetric_conv", "conv", "batch_norm", "avg_pool", "add", "crop", "interpolate")
"""Kinds behind which all channels depend on the same positions: it does not matter which are read from which side."""


def tracked_in(layout: Layout) -> list[Origin]:
    """An axis that a net pools away before any window slides over it has no positions to follow."""
    return [axis for node in layout.inputs for axis in layout.axes[node] if isinstance(axis, Origin)]


def supports_of(model: nn.Module, x: Tensor) -> tuple[Layout, list[Support], list[str]]:
    """Of every convolution's result in execution order, then of the outputs; and their names."""
    layout = read_layout(pr.record(model, example_inputs=x))
    nodes = [*layout.sites.values(), *layout.outputs]
    found = Supports(layout, tracked_in(layout), nodes)
    return layout, [found.of(node) for node in nodes], [node.name for node in nodes]


def check_exact(model: nn.Module, x: Tensor, pooled: bool = False) -> None:
    """The support of every position of every such tensor, against all gradients of that position.

    ``pooled``: a map of one pixel may be padded, so that some windows see nothing of it. Positions end at a global
    pool, so what comes through it is then said to reach these windows too; nothing else may be too much.
    """

    def run(x: Tensor) -> list[Tensor]:
        return tensors_of(model, x)

    layout, supports, names = supports_of(model, x)
    pooled_away = [d - 2 for d in range(2, x.dim()) if Origin(0, d) not in tracked_in(layout)]
    for which, (found, name) in enumerate(zip(supports, names)):
        assert found.unknown is None, name
        moved = sensitivities(run, x, which).abs() > NOISE
        rank = moved.dim() // 2
        moved = moved.any([rank + d for d in pooled_away]) if pooled_away else moved
        for index in product(*map(range, moved.shape[:rank])):
            real = {tuple(p) for p in moved[index].nonzero().tolist()}
            mine = positions(found.terms, (0, 0, *index))
            if pooled and mine != real:
                parts = [(term, positions([term], (0, 0, *index))) for term in found.terms]
                assert all(term.context for term, part in parts if not part <= real), (name, index)
                mine = set().union(*(part for _, part in parts if part <= real))
            assert mine == real, (name, index)


def has_global_pool(spec: NetSpec) -> bool:
    return any(isinstance(s, GlobalPool) or (isinstance(s, AdaptivePool) and 1 in s.size) for s in spec.steps)


@settings(max_examples=max(12, settings.default.max_examples // 2))
@given(nets(ranks=(1, 2), kinds=ALL, linear_only=True, parts=(2, 7)))
def test_random_networks(spec: NetSpec) -> None:
    spec = without_cancelling(spec)
    check_exact(flat_net(spec), spec.draw_input(), has_global_pool(spec))


@settings(max_examples=max(4, settings.default.max_examples // 6))
@given(nets(ranks=(3,), kinds=ALL, linear_only=True, parts=(1, 4)))
def test_random_volumes(spec: NetSpec) -> None:
    spec = without_cancelling(spec)
    check_exact(flat_net(spec), spec.draw_input(), has_global_pool(spec))


@settings(max_examples=max(8, settings.default.max_examples // 3))
@given(nets(ranks=(1, 2), kinds=SAME, linear_only=True, parts=(2, 5)))
def test_networks_with_symmetric_convolutions(spec: NetSpec) -> None:
    spec = without_cancelling(spec)
    check_exact(flat_net(spec), spec.draw_input())


class Branches(nn.Module):
    """Parallel branches of given rates, joined, and a convolution behind: where tools get the field wrong."""

    def __init__(self, rates: tuple[int, ...], kernel: int, stride: int, how: str) -> None:
        super().__init__()
        self.how = how
        self.branches = nn.ModuleList(
            nn.Conv2d(1, 1, kernel, stride, rate * (kernel - 1) // 2, rate, bias=False) for rate in rates
        )
        self.last = nn.Conv2d(1 if how == "add" else len(rates), 1, 3, dilation=2, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        parts = [branch(x) for branch in self.branches]
        return self.last(sum(parts[1:], parts[0]) if self.how == "add" else torch.cat(parts, 1))


@pytest.mark.parametrize("how", ["add", "cat"])
@pytest.mark.parametrize(
    ("rates", "kernel", "stride"), [((1, 2), 3, 1), ((1, 3, 5), 3, 1), ((2, 4), 3, 2), ((1, 2), 5, 2)]
)
def test_dilated_branches(rates: tuple[int, ...], kernel: int, stride: int, how: str) -> None:
    """Museum row 20: receptive fields of branches with dilation."""
    check_exact(flatten_weights(Branches(rates, kernel, stride, how)), torch.rand(1, 1, 13, 16, dtype=torch.float64))


def test_a_union_of_products_is_no_product() -> None:
    """Rates 6, 12 and 18 in parallel reach 25 pixels of an image, not 49."""
    model = flatten_weights(Branches((6, 12, 18), 3, 1, "add"))
    x = torch.rand(1, 1, 41, 41, dtype=torch.float64)
    _, supports, _ = supports_of(model, x)
    joined = [positions(s.terms, (0, 0, 20, 20)) for s in supports[:3]]
    assert len(set().union(*joined)) == 25
    check_exact(model, torch.rand(1, 1, 13, 13, dtype=torch.float64))


class Gated(nn.Module):
    """Two convolutions with something between them that reads everything."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 2, 3, 2, dilation=2, padding=1)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(torch.sigmoid(self.first(x))))


CONTEXT: dict[str, Callable[[Tensor], Tensor]] = {
    "instance norm": F.instance_norm,
    "group norm": lambda x: F.group_norm(x, 2),
    "layer norm": lambda x: F.layer_norm(x, x.shape[1:]),
    "squeeze and excite": lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
    "gate by adaptive pool": lambda x: x * torch.sigmoid(F.adaptive_avg_pool2d(x, 1)),
    "image pooling": lambda x: x + F.interpolate(F.adaptive_avg_pool2d(x, 1), x.shape[2:], mode="bilinear"),
    "rows and columns": lambda x: x * x.mean(3, keepdim=True).sigmoid() * x.mean(2, keepdim=True).sigmoid(),
    "global response": lambda x: x * torch.norm(x, 2, (2, 3), keepdim=True),
}


@pytest.mark.parametrize("name", CONTEXT)
def test_context(name: str) -> None:
    """What arrives through a pool or statistics covers the rest, and the local terms are those of the plain net."""
    torch.manual_seed(1)
    model, x = Gated(CONTEXT[name]).double().eval(), torch.rand(1, 2, 7, 9, dtype=torch.float64)
    check_exact(model, x)
    _, supports, _ = supports_of(model, x)
    _, plain, _ = supports_of(Gated(lambda x: x).double().eval(), x)
    for index in product(range(3), range(4)):
        local = [term for term in supports[-1].local if all(f.dim is not None for f in term.factors)]
        assert positions(local, (0, 0, *index)) == positions(plain[-1].terms, (0, 0, *index))
    if name != "rows and columns":
        assert any(term.context for term in supports[-1].terms)


def test_several_inputs_are_kept_apart() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3, padding=2, dilation=3)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.a(x) + self.b(y)

    x, y = torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8)
    layout = read_layout(pr.record(Two(), example_inputs=(x, y)))
    tracked = [Origin(i, d) for i in (0, 1) for d in (2, 3)]
    terms = Supports(layout, tracked, layout.outputs).of(layout.outputs[0]).terms
    found = {i: positions([t for t in terms if t.input == i], (0, 0, 2, 2)) for i in (0, 1)}
    assert found[0] == set(product((2, 3, 4), (2, 3, 4)))
    assert found[1] == set(product((0, 3, 6), (0, 3, 6)))


class Combs(nn.Module):
    """Nine branches of which none contains another: each reads a pixel of its own."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, x.new_ones(1, 1, 1, 1))
        count = 9
        parts = [x[:, :, i : i + 1, count - i : count - i + 1] for i in range(count)]
        return torch.cat(parts, 1)


def test_too_many_branches_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(1, 1, 10, 10)
    for most, known in ((9, True), (8, False)):
        monkeypatch.setattr(support, "MOST_TERMS", most)
        _, supports, _ = supports_of(Combs(), x)
        assert (supports[-1].unknown is None) == known
        assert len(supports[-1].terms) == (9 if known else 0)
    assert "more than 8 branches" in str(supports[-1].unknown)


@settings(max_examples=max(15, settings.default.max_examples))
@given(nets(ranks=(1, 2), kinds=ALL, linear_only=True, parts=(3, 7)))
def test_counts_are_those_of_the_sets(spec: NetSpec) -> None:
    """``reached`` counts a union without listing it."""
    spec = without_cancelling(spec)
    _, supports, _ = supports_of(spec.build(), spec.draw_input())
    shapes, sizes = spec.shapes, (1, *spec.shape[1:])
    for known, shape in zip(reversed(supports), [shapes[i] for i in reversed(spec.outputs)]):
        for index in ((n // 2 for n in shape), (n - 1 for n in shape), (0 for _ in shape)):
            whole = (0, *index)
            there = positions(known.terms, whole)
            found = reached(known.terms, whole, sizes)
            assert found.count == len(there)
            assert found.positions() == there
            extents = tuple(max(axis) - min(axis) + 1 for axis in zip(*there))
            assert found.extents == extents if there else set(found.extents) <= {0}
            assert found.holes == torch.Size(found.extents).numel() - len(there)


def test_sets() -> None:
    rng = random.Random(0)

    def draw() -> tuple[Any, set[int]]:
        start, bits = rng.randrange(20), rng.getrandbits(rng.choice((1, 5, 40))) | 1
        return (start, bits), {start + t for t in range(bits.bit_length()) if bits >> t & 1}

    for _ in range(300):
        drawn = [draw() for _ in range(rng.randrange(1, 4))]
        joined, wanted = union(mine for mine, _ in drawn), set().union(*(real for _, real in drawn))
        assert set(members(joined)) == wanted
        assert members(joined) == sorted(wanted)
        assert count(joined) == len(wanted)
        (a, ra), (b, rb) = draw(), draw()
        assert covers(a, b) == (rb <= ra)
        assert covers(joined, drawn[0][0])
    assert union([(0, 0), (3, 1)]) == (3, 1)
    assert union([]) == (0, 0)
    assert covers((5, 1), (0, 0))
    assert not covers((0, 0), (5, 1))


class Siamese(nn.Module):
    """One branch for each input, of different kernels; the last convolution reads both."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(1, 1, 3, dilation=2, padding=2)
        self.right = nn.Conv2d(2, 1, (1, 3))
        self.join = nn.Conv2d(1, 1, 3, dilation=2)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.join(self.left(a)[..., 1:-1] + self.right(b))


def test_what_is_reached_of_each_input() -> None:
    model = Siamese().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1)
    inputs = tuple(torch.randn(1, c, 15, 16, dtype=torch.float64, requires_grad=True) for c in (1, 2))
    sites = pr.analyze(model, example_inputs=inputs).sites
    assert sites["left"].reached_of.keys() == {0}
    assert sites["right"].reached_of.keys() == {1}
    out = model(*inputs)
    gradients = torch.autograd.grad(out[0, 0, out.shape[2] // 2, out.shape[3] // 2], inputs)
    for place, gradient in enumerate(gradients):
        wanted = {(int(i), int(j)) for i, j in gradient[0, 0].nonzero()}
        assert sites["join"].reached_of[place].positions() == wanted
    assert sites["join"].reached is None
    assert "of the 9x9 input 0's pixels it spans" in pr.analyze(model, example_inputs=inputs).table(full=True)
