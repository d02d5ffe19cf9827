"""Models of another output stride: their state, their other lives, other passes beside it, and the rates of papers."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from expected import TIGHT, image
from test_output_stride import assert_on_grid, settled, table, unit
from torch import Tensor, nn

import padrewrite as pr
from padrewrite.errors import NoEffectError, PassError
from padrewrite_passes import OutputStride

TO_8 = "output-stride{stride=8}"
X = image(65, 70)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with its stride where ``first`` says, and a projection beside it."""

    def __init__(self, channels: int, stride: int = 1, first: bool = False) -> None:
        super().__init__()
        inner = channels // 2
        self.conv1 = nn.Conv2d(channels, inner, 1, stride if first else 1)
        self.conv2 = nn.Conv2d(inner, inner, 3, 1 if first else stride, 1)
        self.bn, self.conv3 = nn.BatchNorm2d(inner), nn.Conv2d(inner, channels, 1)
        self.down = nn.Conv2d(channels, channels, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv3(self.bn(self.conv2(self.conv1(x).relu())).relu()) + self.down(x)).relu()


class Backbone(nn.Module):
    """A small residual network of output stride 32."""

    def __init__(self, first: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 7, 2, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        depths = {"layer1": 1, "layer2": 2, "layer3": 2, "layer4": 3}
        for name, depth in depths.items():
            stride = 1 if name == "layer1" else 2
            blocks = [Bottleneck(4, stride if i == 0 else 1, first) for i in range(depth)]
            self.add_module(name, nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> Any:
        return self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))  # pyright: ignore


def backbone(first: bool = False) -> nn.Module:
    return settled(Backbone(first))


def pooled() -> nn.Module:
    """Pools of both kinds lose a stride and get a rate: they are redirected."""
    stem = (unit(3, 3, 2), nn.Conv2d(3, 3, 1), nn.MaxPool2d(3, 2, 1))
    return settled(nn.Sequential(*stem, unit(3), nn.AvgPool2d(2, 2), nn.MaxPool2d(3, 1, 1), unit(3)))


def rates(model: nn.Module) -> dict[str, tuple[int, ...]]:
    found = {n: m.dilation for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and max(m.dilation) > 1}
    assert all(d == (d[0], d[0]) for d in found.values())
    return {name: dilation[0] for name, dilation in found.items()}


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("stride", [16, 8, 4])
def test_the_grid_of_a_residual_network(first: bool, stride: int) -> None:
    """Wherever the unit carries its stride, both of its branches end up equally fine."""
    model = backbone(first)
    new = pr.transform(model, [f"output-stride{{stride={stride}}}"], example_inputs=X, verify="full")
    assert_on_grid(model, new, (32 // stride,) * 2, X, image(64, 96), image(83, 61))


@pytest.mark.parametrize(("spec", "want"), [
    ("stride=16", {"layer4.1.conv2": 2, "layer4.2.conv2": 2}),
    ("stride=8", {"layer3.1.conv2": 2, "layer4.0.conv2": 2, "layer4.1.conv2": 4, "layer4.2.conv2": 4}),
    ("stride=16,convention=stride_last", {f"layer4.{i}.conv2": 2 for i in range(3)}),
    (
        "stride=8,convention=stride_last",
        {"layer3.0.conv2": 2, "layer3.1.conv2": 2, **{f"layer4.{i}.conv2": 4 for i in range(3)}},
    ),
    ("stride=16,multi_grid=[1,2,4]", {"layer4.0.conv2": 2, "layer4.1.conv2": 4, "layer4.2.conv2": 8}),
    (
        "stride=16,multi_grid=[1,2,4],convention=stride_first",
        {"layer4.1.conv2": 4, "layer4.2.conv2": 8},
    ),
    (
        "stride=8,multi_grid=[1,2,1]",
        {"layer3.0.conv2": 2, "layer3.1.conv2": 2, "layer4.0.conv2": 4, "layer4.1.conv2": 8, "layer4.2.conv2": 4},
    ),
])  # fmt: skip
def test_the_rates_of_each_convention(spec: str, want: dict[str, int]) -> None:
    """[DLv3] Section 3.3: only the 3x3 convolutions get a rate, that of the stage times that of the unit."""
    new = pr.transform(backbone(), [f"output-stride{{{spec}}}"], example_inputs=X)
    assert rates(new) == want
    exact = "multi_grid" not in spec and "stride_last" not in spec
    contracts = {d.contract for d in pr.report(new).decisions if d.status == "rewritten"}
    assert ("shape" in contracts) != exact


def test_multi_grid_keeps_the_grid_before_it() -> None:
    """The projection that reads the stage below is still promised; what the multiplied rates reach is not."""
    new = pr.transform(
        backbone(), ["output-stride{stride=16,multi_grid=[1,2,4]}"], example_inputs=X, verify="full"
    )
    contracts = {d.site: d.contract for d in pr.report(new).decisions if d.status == "rewritten"}
    assert contracts == {
        "layer4.0.conv2": "shape",
        "layer4.0.down": "grid(2)",
        "layer4.1.conv2": "shape",
        "layer4.2.conv2": "shape",
    }
    found = pr.report(new).verification
    assert found is not None
    assert {e.site for e in found.evidence if e.contract == "grid(2)"} == {"layer4.0.down"}


@pytest.mark.parametrize("spec", [TO_8, "output-stride{stride=16,multi_grid=[1,2,4]}", "output-stride{stride=2}"])
def test_a_second_run_changes_nothing(spec: str) -> None:
    once = pr.transform(backbone(), [spec], example_inputs=X)
    plan = pr.plan(once, [spec], example_inputs=X)
    assert {d.code for d in plan.decisions} == {"already-fine"}
    assert not plan.edits
    assert plan.fingerprint == plan.predicted
    assert torch.equal(pr.transform(once, [spec], example_inputs=X)(X), once(X))


def test_other_rates_are_not_multiplied_again() -> None:
    """Which rate a stage had before its unit's was multiplied cannot be told."""
    once = pr.transform(backbone(), ["output-stride{stride=16}"], example_inputs=X)
    with pytest.raises(NoEffectError, match="no-stage"):
        pr.plan(once, ["output-stride{stride=16,multi_grid=[1,2,4]}"], example_inputs=X)


class Segmenter(nn.Module):
    """A backbone of output stride 16 and atrous pyramid pooling at its rates (6, 12, 18)."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Sequential(unit(3, 3, 2), unit(3, 3, 2), unit(3, 3, 2))
        self.high = nn.Sequential(unit(3, 3, 2), unit(3))
        self.aspp = nn.ModuleList([nn.Conv2d(3, 2, 3, padding=r, dilation=r) for r in (6, 12, 18)])
        self.one, self.whole, self.head = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1), nn.Conv2d(10, 5, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.high(self.low(x))
        branches = [self.one(y), *(conv(y) for conv in self.aspp)]
        image = self.whole(y.mean((2, 3), keepdim=True))
        image = nn.functional.interpolate(image, size=y.shape[2:], mode="bilinear", align_corners=False)
        logits = self.head(torch.cat([*branches, image], 1).relu())
        return torch.cat(branches, 1), nn.functional.interpolate(logits, size=x.shape[2:], mode="bilinear")


def test_atrous_pyramid_pooling_doubles_its_rates() -> None:
    model = settled(Segmenter())
    new = pr.transform(model, [TO_8], example_inputs=X, verify="full")
    assert [r for name, r in rates(new).items() if name.startswith("aspp")] == [12, 24, 36]
    (branches, scores), (finer, same_size) = model(X), new(X)
    torch.testing.assert_close(finer[..., ::2, ::2], branches, **TIGHT)
    assert same_size.shape == scores.shape
    plan = pr.report(new).plans[0]
    assert plan.grids[0].factors["(output 0)"] == (2, 2)
    assert "(output 1)" not in plan.grids[0].factors
    assert plan.grids[0].ended == ("mean in the model, which reads all positions",)


@pytest.mark.zoo
def test_the_pyramid_of_a_deeplab_follows_its_backbone() -> None:
    """Atrous rates of (12, 24, 36) behind a ResNet-10 of output stride 32 are twice that at 16, and again at 8."""
    layers = pytest.importorskip("pytorchcv.models.deeplabv3")
    features = pytest.importorskip("pytorchcv.models.resnet").resnet10().features[:-1]
    pyramid = layers.AtrousSpatialPyramidPooling(512, upscale_out_size=None)
    x = image(64, 81)[:1]
    model = settled(nn.Sequential(features, pyramid))
    for stride, factor in ((16, 2), (8, 4)):
        new: Any = pr.transform(model, [f"output-stride{{stride={stride}}}"], example_inputs=x, verify="full")
        branches = [branch.conv for branch in list(new[1].branches)[:4]]
        assert [conv.dilation[0] for conv in branches] == [1, 12 * factor, 24 * factor, 36 * factor]
        seen = pr.report(new).verification
        assert seen is not None
        promised = {e.site for e in seen.evidence if e.contract == f"grid({factor})"}
        assert promised >= {f"1.branches.branch{i}.conv" for i in (1, 2, 3, 4)}


@pytest.mark.parametrize(("make", "stride", "factor"), [(backbone, 8, 4), (backbone, 16, 2), (pooled, 2, 4)])
def test_it_commutes_with_partial_padding(make: Callable[[], nn.Module], stride: int, factor: int) -> None:
    """A window on the grid has its real taps where the old one had them."""
    model, spec = make(), f"output-stride{{stride={stride}}}"
    one, other, partial, plain = (
        pr.transform(model, passes, example_inputs=X)
        for passes in ([spec, "partial-padding"], ["partial-padding", spec], ["partial-padding"], [spec])
    )
    assert pr.verify(one).ok
    assert pr.verify(other).ok
    for x in (X, image(64, 96), image(83, 61)):
        torch.testing.assert_close(one(x), other(x), **TIGHT)
        assert_on_grid(partial, one, (factor, factor), x)
        assert (one(x) - plain(x)).abs().max() > 1e-3


def test_hybrid_dilation_follows() -> None:
    """It is output stride that makes the rates that leave holes; the other order would take its work back."""
    new = pr.transform(backbone(), [TO_8, "hybrid-dilation"], example_inputs=X)
    assert {p.name: p.rewritten for p in pr.report(new).plans[0].passes} == {"output-stride": 7, "hybrid-dilation": 4}
    with pytest.raises(PassError, match="output-stride must come before hybrid-dilation"):
        pr.plan(backbone(), ["hybrid-dilation", TO_8], example_inputs=X)


class Early(OutputStride):
    """Another pass that has to run early."""

    name: ClassVar[str] = "early"
    before: ClassVar[tuple[str, ...]] = ("hybrid-dilation", "partial-padding")


class Untouchable(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise AssertionError("ran before the order was checked")


def test_every_wrong_order_is_told_before_anything_runs() -> None:
    passes = ["hybrid-dilation", "partial-padding", Early(8), TO_8]
    with pytest.raises(PassError) as caught:
        pr.transform(Untouchable(), passes, example_inputs=X)
    told = ("early must come before hybrid-dilation", "early must come before partial-padding")
    assert all(text in str(caught.value) for text in (*told, "output-stride must come before hybrid-dilation"))


@pytest.mark.parametrize("make", [backbone, pooled])
def test_parameters_keys_and_order_stay(make: Callable[[], nn.Module]) -> None:
    model = make()
    spec = ["output-stride{stride=2}"]
    new = pr.transform(model, spec, example_inputs=X)
    state, was = new.state_dict(), model.state_dict()
    assert list(state) == list(was)
    assert all(torch.equal(state[name], was[name]) for name in was)
    assert [n for n, _ in new.named_modules()] == [n for n, _ in model.named_modules()]
    fresh = make().state_dict()
    new.load_state_dict({name: value + 0.01 for name, value in fresh.items()}, strict=True)
    model.load_state_dict({name: value + 0.01 for name, value in fresh.items()}, strict=True)
    torch.testing.assert_close(new(X), pr.transform(model, spec, example_inputs=X)(X), **TIGHT)
    kept = {id(p) for p in model.parameters()}
    inplace = pr.transform(model, spec, example_inputs=X, inplace=True)
    assert {id(p) for p in inplace.parameters()} == kept


@pytest.mark.parametrize("make", [backbone, pooled])
def test_revert_restores_it(make: Callable[[], nn.Module]) -> None:
    model = make()
    new = pr.transform(model, ["output-stride{stride=2}"], example_inputs=X)
    assert new(X).shape != model(X).shape
    back = pr.revert(new)
    assert repr(back) == repr(model)
    assert [type(m) for m in back.modules()] == [type(m) for m in model.modules()]
    assert torch.equal(back(X), model(X))


def test_a_saved_plan_replays_on_a_fresh_model() -> None:
    plan = pr.plan(pooled(), ["output-stride{stride=2}"], example_inputs=X)
    again = pr.Plan.from_json(plan.to_json())
    assert again == plan
    model = pooled()
    new = pr.apply(model, again)
    assert table(again) == table(plan)
    assert_on_grid(model, new, (4, 4), X, image(64, 81))
    found = pr.verify(new)
    assert found.ok
    assert {e.contract for e in found.evidence} >= {"grid(2)", "grid(4)"}


def test_a_broken_rate_is_found() -> None:
    """A rate that is not the planned one, though all sizes are as planned."""
    new: Any = pr.transform(backbone(), ["output-stride{stride=16}"], example_inputs=X)
    layer = new.layer4[1].conv2
    layer.dilation = layer.padding = (3, 3)
    assert not pr.verify(new).ok


def test_in_train_mode_the_grid_ends_at_the_first_batch_norm() -> None:
    """Its statistics are over all positions. In eval mode, after transforming, all of the grid is there."""
    model = backbone().train()
    x = image(65, 70)
    new = pr.transform(model, ["output-stride{stride=16}"], example_inputs=x, verify="full")
    assert new.training
    contracts = {d.site: d.contract for d in pr.report(new).decisions if d.status == "rewritten"}
    assert contracts["layer4.0.conv2"] == "grid(2)"
    assert contracts["layer4.1.conv2"] == "shape"
    (ended,) = pr.report(new).plans[0].grids[0].ended
    assert ended == "batch_norm in layer4.0.bn, whose statistics are taken over all positions"
    assert f"the grid ended at {ended}" in pr.report(new).why_not("layer4.1.conv2")
    assert_on_grid(model.eval(), new.eval(), (2, 2), x, image(70, 33), image(32, 97))


@pytest.mark.parametrize("way", ["pickle", "deepcopy", "state"])
def test_copies_compute_the_same(way: str) -> None:
    model = pooled()
    new = pr.transform(model, ["output-stride{stride=2}"], example_inputs=X)
    if way == "state":
        other = pr.transform(pooled(), ["output-stride{stride=2}"], example_inputs=X)
        other.load_state_dict(new.state_dict(), strict=True)
    else:
        other = pickle.loads(pickle.dumps(new)) if way == "pickle" else copy.deepcopy(new)
    assert torch.equal(other(X), new(X))
    assert pr.verify(other).ok
    assert torch.equal(pr.revert(other)(X), model(X))
