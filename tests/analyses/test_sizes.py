"""Size forms against real sizes, and what they say of all sizes against sympy and brute force."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import sympy
import torch
import torch.fx as fx
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from ops.calls import FOLLOWED, CallCase, Running
from strategies import NetSpec, nets
from torch import Tensor, nn

import padrewrite as pr
from analyses.oracles import Convolutions, flat_net, without_cancelling
from padrewrite.analyses.layout import Layout, Origin, read_layout
from padrewrite.analyses.size_forms import SizeForm, identity, mapped, reduced
from padrewrite.analyses.sizes import Sizes
from padrewrite.fuzzing.drawing import KINDS
from padrewrite.ops.axis import Cut, Pick, Slide, Spread
from padrewrite.ops.resample import Resample

SIZE = sympy.Symbol("H", integer=True, positive=True)
OTHERS = 40
"""Sizes that each network is run at, besides the recorded one."""


def sizes_of(model: nn.Module, x: Tensor, how: str = "symbolic") -> tuple[Layout, Sizes, fx.Graph]:
    graph = pr.record(model, example_inputs=x)
    assert graph.how == how, graph.notes
    assert graph.nodes is not None
    layout = read_layout(graph)
    return layout, Sizes(layout), graph.nodes


class Shapes(fx.Interpreter):
    """Runs a recorded graph on meta tensors as far as it goes, and keeps every shape."""

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        super().__init__(model, garbage_collect_values=False, graph=graph)

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "get_attr":
            return torch.empty(n.meta["shape"], dtype=n.meta["dtype"], device="meta")
        return super().run_node(n)

    def shapes(self, x: Tensor) -> dict[fx.Node, tuple[int, ...]]:
        """Of everything in front of the first call that refuses these sizes."""
        try:
            self.run(x)
        except (RuntimeError, ValueError):
            pass
        return {node: tuple(v.shape) for node, v in self.env.items() if isinstance(v, Tensor)}


def check_everywhere(model: nn.Module, x: Tensor, least: int) -> int:
    """Every located dimension of every tensor, at sizes that no call refuses; returns how many were compared."""
    layout, sizes, graph = sizes_of(model, x)
    compared = 0
    for more in range(OTHERS):
        grown = [max(least, n) + more * (1 + a) for a, n in enumerate(x.shape[2:])]
        other = torch.empty(*x.shape[:2], *grown, device="meta", dtype=x.dtype)
        real = Shapes(model, graph).shapes(other)
        for node, shape in real.items():
            for d, axis in enumerate(layout.axes.get(node, ())):
                form = sizes.of(node, d) if isinstance(axis, Origin) else None
                if form is not None:
                    assert isinstance(axis, Origin)
                    assert form.at(other.shape[axis.dim]) == shape[d], (node.name, d, other.shape, str(form))
                    compared += 1
    return compared


@settings(max_examples=max(12, settings.default.max_examples // 2))
@given(nets(ranks=(1, 2), kinds=tuple(KINDS), parts=(2, 6)))
def test_random_networks(spec: NetSpec) -> None:
    """Those that are recorded on symbolic sizes and have a position behind some call: nearly all."""
    model, x = spec.build(), spec.draw_input()
    assume(pr.record(model, example_inputs=x).how == "symbolic")
    assume(check_everywhere(model, x, 1) > 0)


@pytest.mark.parametrize("case", FOLLOWED, ids=str)
def test_calls(case: CallCase) -> None:
    """Single calls, run for real; sizes from 12 on are no longer small for any of them."""
    x = torch.rand(1, 4, 6, 7, dtype=torch.float64)
    graph = pr.record(Running(case), example_inputs=x)
    layout = read_layout(graph)
    (node,) = layout.outputs
    sizes = Sizes(layout)
    for h, w in product(range(12, 19), range(13, 20)):
        try:
            shape = Running(case)(torch.rand(1, 4, h, w, dtype=torch.float64)).shape
        except (RuntimeError, ValueError):
            continue
        for d, axis in enumerate(layout.axes[node]):
            form = sizes.of(node, d) if isinstance(axis, Origin) else None
            if form is not None:
                assert isinstance(axis, Origin)
                assert form.at((1, 4, h, w)[axis.dim]) == shape[d], (case.name, d, h, w, str(form))


class Computed(nn.Module):
    """A call whose arguments are computed from sizes."""

    def __init__(self, run: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.run, self.conv = run, nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self.conv(x))


def pad_to(x: Tensor, multiple: int) -> Tensor:
    return F.pad(x, (0, 0, 0, -x.shape[2] % multiple))


def tf_same(x: Tensor, stride: int, kernel: int) -> Tensor:
    n = x.shape[2]
    total = max(0, (math.ceil(n / stride) - 1) * stride + kernel - n)
    return F.max_pool2d(F.pad(x, (0, 0, total // 2, total - total // 2)), (kernel, 1), (stride, 1))


def odd_unet(x: Tensor) -> Tensor:
    low = F.max_pool2d(F.max_pool2d(x, 2), 2, ceil_mode=True)
    return x + F.interpolate(low, size=x.shape[2:], mode="bilinear")


def padded_unet(x: Tensor) -> Tensor:
    up = F.interpolate(F.max_pool2d(x, 2), scale_factor=2)
    missing = [x.shape[d] - up.shape[d] for d in (2, 3)]
    return torch.cat([x, F.pad(up, (0, missing[1], 0, missing[0]))], 1)


COMPUTED: dict[str, tuple[Callable[[Tensor], Tensor], str | None]] = {
    "half": (lambda x: F.interpolate(x, (x.shape[2] // 2, x.shape[3])), "floor(H/2)"),
    "rounded up": (lambda x: F.interpolate(x, (-(-x.shape[2] // 3), x.shape[3])), "floor((H + 2)/3)"),
    "rounded": (lambda x: F.interpolate(x, (round(x.shape[2] / 3), 4)), "floor((H + 1)/3)"),
    "halves rounded to even": (
        lambda x: F.interpolate(x, (round(x.shape[2] / 2), 4)),
        "2*floor(H/4) + one of 3 values by H mod 4",
    ),
    "to a multiple": (lambda x: pad_to(x, 8), "8*floor((H + 7)/8)"),
    "three halves": (lambda x: F.interpolate(x, scale_factor=1.5), "floor(3*H/2)"),
    "recomputed": (
        lambda x: F.interpolate(x, scale_factor=1.3, mode="bilinear", recompute_scale_factor=True),
        "floor(13*H/10)",
    ),
    "irregular": (lambda x: F.interpolate(x, scale_factor=0.7), None),
    "irregular and then cut": (lambda x: torch.cat([F.interpolate(x, scale_factor=0.7)] * 2, 2), None),
    "area": (lambda x: F.interpolate(x, scale_factor=0.5, mode="area"), "floor(H/2)"),
    "cat of rows": (lambda x: torch.cat([x, x[:, :, ::2]], 2), "floor((3*H + 1)/2)"),
    "slice": (lambda x: x[:, :, : x.shape[2] // 3], "floor(H/3)"),
    "slice of the start": (lambda x: x[:, :, :10], "10"),
    "slice past the end": (lambda x: x[:, :, :100], None),
    "chunk": (lambda x: x.chunk(2, 2)[1], "floor(H/2)"),
    "split": (lambda x: x.split(5, 2)[0], None),
    "rest of a split": (lambda x: x.split(5, 2)[-1], None),
    "split into sizes": (lambda x: x.split([3, x.shape[2] - 3], 2)[1], "H - 3"),
    "none of one axis": (lambda x: F.adaptive_avg_pool2d(x, (None, 4)), "H"),
    "adaptive": (lambda x: F.adaptive_avg_pool2d(x, (5, 4)), "5"),
    "same as tensorflow": (lambda x: tf_same(x, 2, 3), "floor((H + 1)/2)"),
    "odd u-net": (odd_unet, "H"),
    "padded u-net": (padded_unet, "H"),
    "turned": (lambda x: F.interpolate(x, (x.shape[3], x.shape[2])), None),
    "transposed": (lambda x: F.conv_transpose2d(x, torch.ones(1, 1, 3, 3), None, 2, 1), "2*H - 1"),
    "there and back": (
        lambda x: F.conv_transpose2d(
            F.conv2d(x, torch.ones(1, 1, 3, 3), None, 2, 1), torch.ones(1, 1, 3, 3), None, 2, 1
        ),
        "2*floor((H - 1)/2) + 1",
    ),
    "squeezed": (lambda x: F.pixel_shuffle(F.pixel_unshuffle(x[:, :, :-1, :-1], 5), 5), "5*floor((H - 1)/5)"),
}


COUNTED = ("chunk", "split", "rest of a split")
"""How many pieces they make is a number to torch, so they are recorded on the real inputs; halves are followed, but the
width of a split may be a size that became a number."""


@pytest.mark.parametrize("name", COMPUTED)
def test_computed_sizes(name: str) -> None:
    """As text, and at sizes around the recorded one (16)."""
    run, text = COMPUTED[name]
    how = "real inputs" if name in COUNTED else "symbolic"
    layout, sizes, _ = sizes_of(Computed(run), torch.rand(1, 1, 16, 21), how)
    (node,) = layout.outputs
    form = sizes.of(node, 2)
    assert (None if form is None else str(form)) == text
    for n in range(14, 14 + OTHERS):
        if form is not None:
            try:
                real = run(torch.empty(1, 1, n, 21)).shape[2]
            except RuntimeError:
                continue
            assert form.at(n) == real
            assert form.expression().subs(SIZE, n) == form.at(n)


# What a form says


forms = st.builds(
    lambda slope, values: reduced(slope, values),
    st.integers(0, 4),
    st.lists(st.integers(0, 6), min_size=1, max_size=6),
)


@given(forms)
def test_expression_and_text_say_the_same_as_the_form(form: SizeForm) -> None:
    expression = form.expression()
    for n in range(1, 4 * form.period + 3):
        assert int(expression.subs(SIZE, n)) == form.at(n)
        if "values" not in str(form):
            assert eval(str(form), {"floor": math.floor, "H": n}) == form.at(n)


@given(forms, forms)
def test_equality_is_decided(a: SizeForm, b: SizeForm) -> None:
    period = math.lcm(a.period, b.period)
    differs = {n % period for n in range(100 * period, 102 * period) if a.at(n) != b.at(n)}
    if a.slope * b.period != b.slope * a.period:
        assert a.unequal(b) == tuple(range(period))
    else:
        assert set(a.unequal(b)) == differs
    assert a.same_as(b) == (not differs)
    assert a.same_as(a)


@given(st.integers(1, 4), st.lists(st.integers(0, 6), min_size=1, max_size=12))
def test_reduced_forms_are_the_same(slope: int, values: list[int]) -> None:
    form = reduced(slope, values)
    for n in range(5 * len(values)):
        assert form.at(n) == slope * (n // len(values)) + values[n % len(values)]
    assert len(values) % form.period == 0
    assert all(reduced(form.slope, form.values) == form for _ in range(2))


windows = st.builds(
    Slide,
    kernel=st.integers(1, 5),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    lo=st.integers(0, 3),
    hi=st.integers(0, 3),
    ceil=st.booleans(),
)
maps = st.one_of(
    windows,
    st.builds(Spread, st.integers(1, 4), st.integers(1, 3), lo=st.integers(0, 1), hi=st.integers(0, 1)),
    st.builds(Resample, st.just("linear"), st.none(), st.sampled_from((2.0, 0.5, 1.5))),
    st.builds(Pick, st.integers(0, 2), st.one_of(st.none(), st.integers(-3, -1)), st.integers(1, 3)),
)


@given(st.lists(maps, min_size=1, max_size=5))
def test_chains_of_maps(chain: list[Any]) -> None:
    form: SizeForm | None = identity()
    for axis in chain:
        form = None if form is None else mapped(axis, form)
    if form is None:
        return
    for n in range(400, 400 + 2 * OTHERS):
        real = n
        for axis in chain:
            real = axis.size(real)
        assert form.at(n) == real


cuts = st.one_of(
    maps,
    st.builds(Pick, st.integers(-4, 4), st.one_of(st.none(), st.integers(-4, 4)), st.integers(1, 3)),
    st.builds(Cut, st.integers(0, 2), st.integers(3, 4)),
    st.builds(Cut, st.integers(0, 2), width=st.integers(1, 4)),
)


@given(st.lists(cuts, min_size=1, max_size=5))
def test_forms_hold_from_where_they_say(chain: list[Any]) -> None:
    """At every size from there on that torch accepts: windows want one output or more, slices may be empty."""
    form: SizeForm | None = identity()
    for axis in chain:
        form = None if form is None else mapped(axis, form)
    if form is None:
        return
    assert form.since is not None
    for n in range(form.since, form.since + 60):
        real = n
        for axis in chain:
            fits = isinstance(axis, (Pick, Cut)) or (real > 0 and axis.size(real) > 0)
            if not fits:
                break
            real = axis.size(real)
        else:
            assert form.at(n) == real, (n, form)


def test_forms_hold_from_the_first_size_that_they_can() -> None:
    """The size before is another one."""
    for chain, since in (
        ([Pick(0, 10)], 10),
        ([Slide(3, 2, 1, 1, 1), Pick(2, -3)], 9),
        ([Cut(0, width=5), Pick(2, 4)], 5),
        ([Slide(2, 2), Slide(2, 2)], 1),
    ):
        form = identity()
        for axis in chain:
            found = mapped(axis, form)
            assert found is not None
            form = found
        assert form.since == since


@given(forms)
def test_unchanged_says_where_it_is_not(form: SizeForm) -> None:
    other = {n % form.period for n in range(100 * form.period, 101 * form.period) if form.at(n) != n}
    assert set(form.changed) == (other if form.slope == form.period else set(range(form.period)))
    assert form.unchanged == (not form.changed)


@settings(max_examples=10)
@given(st.lists(windows.filter(lambda w: not w.ceil), min_size=1, max_size=4))
def test_proof_by_residues(chain: list[Slide]) -> None:
    """sympy proves for ALL sizes that a chain of floors is the form: with H = period*q + r both sides are the same."""
    q = sympy.Symbol("q", integer=True, positive=True)
    chained: Any = SIZE
    form: SizeForm | None = identity()
    for w in chain:
        chained = sympy.floor((chained + w.lo + w.hi - w.reach - 1) / sympy.Integer(w.stride)) + 1
        form = None if form is None else mapped(w, form)
    assert form is not None
    assert form.floor_form is not None  # any chain of windows is floor((H + a)/m)
    assert form.floor_form[0] == 1
    assert form.floor_form[3] == 0
    for r in range(form.period):
        difference = (chained - form.expression()).subs(SIZE, form.period * q + r)
        assert sympy.simplify(difference) == 0


# What must be equal


def down(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2)


def up(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2)


REQUIREMENTS: dict[str, tuple[Callable[[Tensor], Tensor], list[str]]] = {
    "plain u-net": (lambda x: torch.cat([x, up(down(x))], 1), ["H = 2*floor(H/2)"]),
    "deep u-net": (
        lambda x: torch.cat([x, up(torch.cat([down(x), up(down(down(x)))], 1))], 1),
        ["floor(H/2) = 2*floor(H/4)", "H = 2*floor(H/2)"],
    ),
    "odd u-net": (odd_unet, []),
    "padded u-net": (padded_unet, []),
    "unpadded branch": (lambda x: x[:, :, 1:-1, 1:-1] + F.avg_pool2d(x, 3, 1), []),
    "shifted": (lambda x: x[:, :, 1:, 1:] + F.avg_pool2d(x, 3, 1, 1)[:, :, :-1, :-1], []),
    "two ways down": (
        lambda x: down(x) + F.conv2d(x, torch.ones(1, 1, 3, 3), None, 2, 1),
        ["floor(H/2) = floor((H + 1)/2)"],
    ),
    "ceil and floor": (lambda x: F.max_pool2d(x, 2, ceil_mode=True) + F.avg_pool2d(x, 3, 2, 1), []),
    "a size of its own": (lambda x: x + F.interpolate(down(x), (16, 16)), ["H = 16"]),
    "gate": (lambda x: x * x.mean((2, 3), keepdim=True), []),
}


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_requirements_are_those_that_make_it_run(name: str) -> None:
    run, texts = REQUIREMENTS[name]
    model = Computed(run)
    layout, sizes, _ = sizes_of(model, torch.rand(1, 1, 16, 16))
    along_h = [(a, b) for node, d, a, b in sizes.requirements if layout.axes[node][d] == Origin(0, 2)]
    assert [f"{a} = {b}" for a, b in along_h] == texts
    for n in range(12, 12 + OTHERS):
        runs = all(n % math.lcm(a.period, b.period) not in a.unequal(b) or a.at(n) == b.at(n) for a, b in along_h)
        try:
            model(torch.rand(1, 1, n, 16))
        except RuntimeError:
            assert not runs, n
        else:
            assert runs, n


def test_inputs_and_axes_are_not_mixed() -> None:
    """The sizes of two inputs, or of height and width, are not functions of each other."""

    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            weight = torch.ones(1, 1, 3, 3)
            return F.conv2d(x, weight) + F.conv2d(y, weight, None, 1, 1)[..., 1:-1, 1:-1] + F.conv2d(x, weight).mT

    layout = read_layout(pr.record(Two(), example_inputs=(torch.rand(1, 1, 16, 16), torch.rand(1, 1, 16, 16))))
    sizes = Sizes(layout)
    assert str(sizes.of(layout.outputs[0], 2)) == "H - 2"
    assert sizes.requirements == []


def test_convolutions_have_the_sizes_of_the_real_model() -> None:
    """Once without the recorded graph: every convolution of a network with odd sizes on all levels."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3, 2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(2, 1, 4, 3, 2)).eval()
    layout, sizes, _ = sizes_of(model, torch.rand(1, 1, 33, 40))
    for n in range(20, 20 + OTHERS):
        with Convolutions() as seen, torch.no_grad():
            model(torch.rand(1, 1, n, 40))
        for node, result in zip(layout.sites.values(), seen.results):
            form = sizes.of(node, 2)
            assert form is not None
            assert form.at(n) == result.shape[2]


def test_sums_and_linear_resizes_change_no_size() -> None:
    """What other tests do to random networks leaves shapes alone."""
    for spec in (NetSpec((1, 9), (), ()),):
        assert flat_net(without_cancelling(spec))(spec.draw_input())[0].shape == (1, 1, 9)
