"""Models of which Dynamo makes several graphs: names, call numbers, and judgement are those of the whole model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.exc import BackendCompilerFailed
from torch.utils.checkpoint import checkpoint

import padrewrite
from padrewrite.emitting.backend import Backend, compile_model
from padrewrite.errors import NoEffectError, SelectorError

from .nets import OPTIONS, PASSES, Block, closeness

pytestmark = [
    pytest.mark.compile,
    # Dynamo looks at .grad of whatever a broken graph hands to the next one.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
]


class Broken(nn.Module):
    """Breaks in the root's forward and in that of two equal submodules; one layer is used on both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Conv2d(4, 4, 3, padding=1)
        self.one = Block(4, torch._dynamo.graph_break)
        self.two = Block(4, torch._dynamo.graph_break)
        self.point = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.two(self.one(self.before(x)))
        x = self.point(x)
        torch._dynamo.graph_break()
        return self.before(x)


class Looped(nn.Module):
    """A break in a loop: Dynamo gives the root up and compiles each block by itself."""

    def __init__(self, second: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(4, torch._dynamo.graph_break), second])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def compiled(model: nn.Module, **settings: Any) -> tuple[nn.Module, Backend]:
    it = compile_model(model, passes=PASSES, backend="eager", **settings)
    return it, vars(it)["_padrewrite_backend"]


def codes(one: Backend) -> dict[str, str]:
    return {d.site: d.code for d in one.decisions}


def test_a_broken_model_computes_what_transform_computes() -> None:
    model, x = Broken().eval(), torch.randn(2, 4, 9, 10)
    new = padrewrite.transform(model, PASSES, example_inputs=x)
    it, one = compiled(model)
    for size in (9, 12, 15):
        x = torch.randn(2, 4, size, 10)
        assert closeness(it(x), new(x)) < 1e-6
    planned = {d.site: d.code for d in padrewrite.plan(model, PASSES, example_inputs=x).decisions}
    assert codes(one) == planned
    assert planned["before@1"] == "rewritten"
    assert one.plan().passes[0].rewritten == 6


def test_modules_that_share_a_graph_are_reported_as_such() -> None:
    it, one = compiled(Broken().eval())
    it(torch.randn(2, 4, 9, 10))
    reasons = {d.site: d.reason for d in one.decisions}
    assert reasons["two.first"] == "every condition held, in the graph of one.first"


def test_selectors_that_part_modules_of_one_graph() -> None:
    """The graph of ``one`` also runs ``two``: honouring the selector for one of them would rewrite both."""
    it, _ = compiled(Broken().eval(), include="one.*")
    with pytest.raises(BackendCompilerFailed, match=r"one\.first and two\.first run in one\s+graph"):
        it(torch.randn(2, 4, 9, 10))
    model, x = Broken().eval(), torch.randn(2, 4, 9, 10)
    it, one = compiled(model, include=["one.*", "two.*"])
    assert closeness(it(x), padrewrite.transform(model, PASSES, example_inputs=x, exclude="before")(x)) < 1e-6
    assert codes(one)["before"] == "not-selected"


def test_a_selector_may_match_in_one_graph_only() -> None:
    model, x = Broken().eval(), torch.randn(2, 4, 9, 10)
    it, _ = compiled(model, include="before@1")
    last = model.point(model.two(model.one(model.before(x))))
    assert closeness(it(x), padrewrite.ops.partial_conv(last, model.before.weight, model.before.bias, padding=1)) < 1e-6
    it, _ = compiled(model, include="nothing")
    with pytest.raises(SelectorError, match="matched 0 of 7"):
        it(x)


def test_no_effect_is_judged_over_all_graphs() -> None:
    class Points(nn.Module):
        def __init__(self, padding: int) -> None:
            super().__init__()
            self.point = nn.Conv2d(4, 4, 1)
            self.last = nn.Conv2d(4, 4, 3, padding=padding)

        def forward(self, x: Tensor) -> Tensor:
            x = self.point(x)
            torch._dynamo.graph_break()
            return self.last(x)

    x = torch.randn(1, 4, 8, 8)
    it, one = compiled(Points(1))
    it(x)
    assert codes(one) == {"point": "unpadded", "last": "rewritten"}
    it, _ = compiled(Points(0))
    with pytest.raises(NoEffectError, match="2 unpadded"):
        it(x)
    # By name the backend sees one part at a time, and cannot know whether another part makes up for it.
    torch._dynamo.reset()
    with pytest.warns(UserWarning, match="one of several graphs"):
        torch.compile(Points(1), backend="padrewrite", options=OPTIONS)(x)
    torch._dynamo.reset()
    with pytest.raises(BackendCompilerFailed, match=r"padrewrite\.compile"):
        torch.compile(Points(1), backend="padrewrite", options={**OPTIONS, "include": "last"})(x)


def test_submodules_compiled_by_themselves_have_the_models_names() -> None:
    model, x = Looped(Block(4)).eval(), torch.randn(2, 4, 9, 10)
    it, one = compiled(model)
    assert closeness(it(x), padrewrite.transform(model, PASSES, example_inputs=x)(x)) < 1e-6
    assert sorted(codes(one)) == ["blocks.0.first", "blocks.0.second", "blocks.1.first", "blocks.1.second"]


def test_what_runs_outside_every_graph_is_reported() -> None:
    class Escaping(Block):
        @torch._dynamo.disable
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)

    model, x = Looped(Escaping(4)).eval(), torch.randn(2, 4, 9, 10)
    it, one = compiled(model)
    new = padrewrite.transform(model, PASSES, example_inputs=x, include="blocks.0.*")
    assert closeness(it(x), new(x)) < 1e-6
    assert codes(one) == {
        "blocks.0.first": "rewritten",
        "blocks.0.second": "rewritten",
        "blocks.1.first": "not-compiled",
        "blocks.1.second": "not-compiled",
    }


def test_a_module_that_could_share_a_graph_and_does_not() -> None:
    """The second block fails the first one's guards, and Dynamo has compiled that forward often enough."""

    class Scaled(Block):
        def __init__(self, scale: float) -> None:
            super().__init__(4)
            self.scale = scale

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x) * self.scale)

    model = Looped(Scaled(3.0)).eval()
    model.blocks.insert(1, Scaled(2.0))
    it, one = compiled(model)
    x = torch.randn(2, 4, 9, 10)
    with torch._dynamo.config.patch(recompile_limit=1):
        got = it(x)
    new = padrewrite.transform(model, PASSES, example_inputs=x, exclude="blocks.2.*")
    assert closeness(got, new(x)) < 1e-6
    assert {site: code for site, code in codes(one).items() if code != "rewritten"} == {
        "blocks.2.first": "not-compiled",
        "blocks.2.second": "not-compiled",
    }


def test_a_checkpoints_body_is_rewritten() -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Block(4)
            self.last = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(checkpoint(self.inner, x, use_reentrant=False))

    model, x = Checkpointed(), torch.randn(2, 4, 9, 10)
    it = compile_model(model, passes=PASSES, backend="aot_eager", fullgraph=True)
    new = padrewrite.transform(model, PASSES)
    assert closeness(it(x), new(x)) < 1e-6
    assert set(codes(vars(it)["_padrewrite_backend"])) == {"inner.first", "inner.second", "last"}
    it(x).square().sum().backward()
    got = model.inner.first.weight.grad
    new(x).square().sum().backward()
    assert got is not None
    assert closeness(got, new.inner.first.weight.grad) < 1e-5


def region_called_twice() -> torch.fx.GraphModule:
    """What Dynamo makes of a compiled region: a nested graph that is given each caller's parameters."""
    inner = torch.fx.Graph()
    x, weight = inner.placeholder("x"), inner.placeholder("weight")
    conv = inner.call_function(torch.conv2d, (x, weight), {"padding": 1})
    inner.output(conv)
    for node, shape in ((x, (1, 3, 8, 8)), (weight, (3, 3, 3, 3)), (conv, (1, 3, 8, 8))):
        node.meta["example_value"] = torch.zeros(shape)
    outer = torch.fx.Graph()
    x, one, two = (outer.placeholder(name) for name in ("x", "one", "two"))
    region = outer.get_attr("region")
    y = outer.call_function(torch.cond, (True, region, region, [x, one]))
    outer.output(outer.call_function(torch.cond, (True, region, region, [y, two])))
    return torch.fx.GraphModule({"region": torch.fx.GraphModule({}, inner)}, outer)


def test_selectors_in_a_region_that_several_modules_run() -> None:
    gm = region_called_twice()
    Backend(PASSES).rewrite(gm, [])
    assert any(node.target is torch.mul or "mul" in node.name for node in gm.region.graph.nodes)
    with pytest.raises(SelectorError, match="several modules run the region"):
        Backend(PASSES, include="*").rewrite(region_called_twice(), [])


def test_reset_forgets() -> None:
    model, x = Broken().eval(), torch.randn(2, 4, 9, 10)
    it, one = compiled(model)
    it(x)
    before = codes(one)
    torch._dynamo.reset()
    assert not one.sites
    it(x)
    assert codes(one) == before
