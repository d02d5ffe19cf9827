"""ResNet-GCN: which blocks change, into what, and what the paper's network costs."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from expected import TIGHT, Row
from torch import Tensor, nn

import padrewrite as pr
from padrewrite.errors import NoEffectError, PassError
from padrewrite_passes import ResnetGcn

NAME = "resnet-gcn"
SMALL = ResnetGcn((3, 5), (6, 7))


class Block(nn.Module):
    """A bottleneck as torchvision writes it: one ReLU, used three times, in place."""

    def __init__(self, channels: int, middle: int, out: int, stride: int = 1, rank: int = 2, **options: Any) -> None:
        super().__init__()
        conv, norm = getattr(nn, f"Conv{rank}d"), getattr(nn, f"BatchNorm{rank}d")
        first = options.pop("first", False)
        self.conv1 = conv(channels, middle, 1, stride if first else 1, bias=False, groups=options.get("groups", 1))
        options = {"padding": 1, "bias": False, **options}
        self.conv2 = conv(middle, middle, 3, 1 if first else stride, **options)
        self.conv3 = conv(middle, out, 1, bias=False)
        self.bn1, self.bn2, self.bn3 = norm(middle), norm(middle), norm(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride > 1 or channels != out:
            self.downsample = nn.Sequential(conv(channels, out, 1, stride, bias=False), norm(out))

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(out)))))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


def net(**options: Any) -> nn.Sequential:
    """Three stages, of one block, two and one; their strides are in the second convolution."""
    torch.manual_seed(0)
    numbers = ((8, 4, 8, 1), (8, 8, 16, 2), (16, 8, 16, 1), (16, 8, 24, 2))
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *(Block(*n, **options) for n in numbers)).double()


def image(n: int = 2) -> Tensor:
    return torch.randn(n, 3, 17, 22, dtype=torch.float64)


def rewrite(model: nn.Module, verify: str = "quick") -> Any:
    return pr.transform(model, [SMALL], example_inputs=image(), verify=verify)


def test_before_and_after() -> None:
    model = net()
    new = rewrite(model, verify="full")
    assert [name for name, m in new.named_modules() if type(m) is pr.nn.GlobalConv2d] == [
        *("2.conv1", "3.conv1", "4.conv1"),
    ]
    assert [str(layer) for layer in new[2].conv1.left] == [
        "Conv2d(8, 6, kernel_size=(3, 1), stride=(2, 2), padding=(1, 0), bias=False)",
        "BatchNorm2d(6, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)",
        "ReLU()",
        "Conv2d(6, 6, kernel_size=(1, 3), stride=(1, 1), padding=(0, 1), bias=False)",
        "BatchNorm2d(6, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)",
        "ReLU()",
    ]
    assert str(new[4].conv1.right[0]) == "Conv2d(16, 7, kernel_size=(1, 5), stride=(2, 2), padding=(0, 2), bias=False)"
    assert str(new[4].conv3.conv[0]) == "Conv2d(7, 24, kernel_size=(1, 1), stride=(1, 1), bias=False)"
    assert not list(new[4].conv2.parameters()) + list(new[4].bn1.parameters()) + list(new[4].bn2.parameters())
    found = {d.site: d.code for d in pr.report(new).decisions}
    assert {found[f"{b}.conv{n}"] for b in (1,) for n in (1, 2, 3)} == {"earlier-stage"}
    assert {found[f"{b}.conv{n}"] for b in (2, 3, 4) for n in (1, 2, 3)} == {"rewritten"}
    assert {d.contract for d in pr.report(new).decisions if d.status == "rewritten"} == {"shape"}
    assert new(image()).shape == model(image()).shape


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("first", [True, False])
def test_a_block_is_the_papers(training: bool, first: bool) -> None:
    """Written out: BN and ReLU after each convolution, the branches added, 1 x 1, and around it the old block."""
    model = net(first=first).train(training)
    new = rewrite(model)
    block = new[2]
    for m in new.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_()
            m.weight.data.normal_()
    x = torch.randn(2, 8, 9, 12, dtype=torch.float64)
    state = copy.deepcopy(block.state_dict())

    def step(value: Tensor, name: str, stride: int, pads: tuple[int, int]) -> Tensor:
        value = F.conv2d(value, state[f"{name}.weight"], None, stride, pads)
        layer, n = name.rsplit(".", 1)
        norm = f"{layer}.{int(n) + 1}"
        mean, var = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        return F.batch_norm(value, mean, var, state[f"{norm}.weight"], state[f"{norm}.bias"], training).clamp(min=0)

    left = step(step(x, "conv1.left.0", 2, (1, 0)), "conv1.left.3", 1, (0, 1))
    right = step(step(x, "conv1.right.0", 2, (0, 1)), "conv1.right.3", 1, (1, 0))
    out = block.bn3(F.conv2d(left + right, state["conv3.conv.0.weight"])) + block.downsample(x)
    block.load_state_dict(state)
    torch.testing.assert_close(block(x), out.clamp(min=0), **TIGHT)


class Shrinking(Block):
    """Its 3 x 3 convolution is not padded, and neither is the projection around."""

    def __init__(self) -> None:
        super().__init__(3, 4, 6, padding=0)
        self.downsample = nn.Sequential(nn.Conv2d(3, 6, 3))


def rewritten() -> nn.Module:
    return pr.transform(nn.Sequential(Block(3, 4, 6)), [ResnetGcn((3,), (6,))], example_inputs=torch.ones(2, 3, 9, 12))


REFUSALS = [
    Row("already-gcn", "kept", NAME, rewritten, (9, 12)),
    Row("earlier-stage", "kept", NAME, lambda: nn.Sequential(*(Block(n, 4, n + 1) for n in (3, 4, 5))), (9, 12)),
    Row("grouped", "refused", NAME, lambda: nn.Sequential(Block(3, 6, 6, groups=3)), (9, 12)),
    Row("not-an-image", "refused", NAME, lambda: nn.Sequential(Block(3, 4, 6, rank=1)), (12,)),
    Row("own-padding", "refused", NAME, lambda: nn.Sequential(Shrinking()), (9, 12)),
]


@pytest.mark.parametrize("row", REFUSALS, ids=lambda row: row.code)
def test_refusals(row: Row) -> None:
    found = row.decide()
    assert (found.status, found.code) == (row.status, row.code)
    assert found.contract is None
    assert found.before == found.after
    assert found.reason


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("kernels=[5]", "are not as many"),
        ("kernels=[4,6]", "are not odd sizes"),
        ("kernels=7,channels=9", r"kernels=7 is not a list, one number a stage: write kernels=\[7\]"),
        ("kernels=[7],channels=9", r"channels=9 is not a list, one number a stage: write channels=\[9\]"),
        ("channels=[85,0]", "are not numbers of channels"),
    ],
)
def test_a_wrong_option_is_an_error(options: str, message: str) -> None:
    with pytest.raises(PassError, match=message):
        pr.plan(net(), [f"{NAME}{{{options}}}"], example_inputs=image())


def test_the_last_stage_alone() -> None:
    new = pr.transform(net(), [ResnetGcn((5,), (7,))], example_inputs=image(), verify="full")
    assert [n for n, m in new.named_modules() if type(m) is pr.nn.GlobalConv2d] == ["4.conv1"]


def test_checkpoints_of_the_original_load_strict_as_far_as_there_is_a_place_for_them() -> None:
    model, other = net(), net()
    new = rewrite(model)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(1)
    fresh = new[3].conv1.left[0].weight.clone()
    new.load_state_dict(other.state_dict(), strict=True)
    assert torch.equal(new[3].bn3.weight, other[3].bn3.weight)
    assert torch.equal(new[1].conv2.weight, other[1].conv2.weight)
    assert torch.equal(new[3].conv1.left[0].weight, fresh)
    again = rewrite(net())
    again.load_state_dict(new.state_dict(), strict=True)
    assert torch.equal(again.eval()(image() * 0 + 1), new.eval()(image() * 0 + 1))


def test_an_original_checkpoint_resets_what_is_attached_within_and_leaves_what_began_anew() -> None:
    model = net()
    passes = [SMALL, "boundary-refinement{at=4.conv1}"]
    new = pr.transform(model, passes, example_inputs=image(), verify="off")
    with torch.no_grad():
        for p in new.parameters():
            p.add_(0.1)
    inner = new[4].conv1
    before = {name: value.clone() for name, value in inner.state_dict().items()}
    new.load_state_dict(model.state_dict(), strict=True)
    reset = {name for name in before if "refinement.residual.2" in name}
    assert reset
    assert {name for name, value in inner.state_dict().items() if not torch.equal(value, before[name])} == reset
    assert not any(inner.state_dict()[name].any() for name in reset)


def test_it_trains_copies_and_reverts() -> None:
    model, x = net(), image()
    new = rewrite(model)
    trained = copy.deepcopy(new)
    trained(x).square().mean().backward()
    assert all(p.grad is not None for p in trained.parameters())
    assert trained[4].conv1.left[4].num_batches_tracked == new[4].conv1.left[4].num_batches_tracked + 1
    for again in (copy.deepcopy(new), pickle.loads(pickle.dumps(new))):
        assert torch.equal(again.eval()(x), new.eval()(x))
    back = pr.revert(pickle.loads(pickle.dumps(new)), original=model)
    assert list(back.state_dict()) == list(model.state_dict())
    assert torch.equal(pr.revert(new).eval()(x), model.eval()(x))


@pytest.mark.parametrize("layer", ["conv1", "conv2"])
@pytest.mark.parametrize("late", [True, False])
def test_it_trains_with_backward_hooks_before_a_relu_that_writes_in_place(layer: str, late: bool) -> None:
    model, seen = net(), list[str]()
    new = rewrite(model) if late else None
    (new or model)[4].get_submodule(layer).register_full_backward_hook(lambda *_: seen.append(layer))
    new = new or rewrite(model)
    new(image()).square().mean().backward()
    assert seen == [layer]
    assert all(p.grad is not None for p in new.parameters())


def test_what_begins_anew_is_trained_in_a_frozen_network_too() -> None:
    model = net().requires_grad_(False)
    new = rewrite(model)
    trained = {name for name, p in new.named_parameters() if p.requires_grad}
    assert {name.split(".")[1] for name in trained} == {"conv1", "conv3"}
    assert {name for name, _ in new.named_parameters()} - trained == {
        name for name, _ in model.named_parameters() if name in dict(new.named_parameters())
    }


def test_new_norms_have_the_mode_of_those_they_replace() -> None:
    """Frozen statistics, as in detectors."""
    model = net().train()
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.eval()
    new = rewrite(model, verify="full")
    assert {m.training for m in new.modules() if isinstance(m, nn.BatchNorm2d)} == {False}
    assert new[4].conv1.training
    assert new[4].conv1.left[0].training


def test_the_report_says_what_becomes_of_layers_and_what_begins_anew() -> None:
    """Fourteen norms were there; two go with each of three blocks."""
    new = rewrite(net())
    told = " ".join(str(pr.report(new)).split())
    assert "k3 s2 p1 d1 -> passed on shape" in told
    assert "k1 s1 p0 d1 c8>24 -> 1x1 c7>24 shape" in told
    assert "6 layers begin anew, with random weights: train the network" in told
    assert "8 batch norms keep statistics" in told
    assert "29 in part" in told
    assert "converted" not in told
    assert repr(new[4].conv2) == "Assembled(skip)"


def test_a_second_run_changes_nothing() -> None:
    new = rewrite(net())
    again = pr.plan(new, [SMALL], example_inputs=image())
    assert not again.edits
    assert {d.code for d in again.decisions} == {"no-match", "already-gcn", "earlier-stage"}


@pytest.mark.parametrize("others", [["partial-padding"], ["output-stride{stride=2}"]])
def test_other_passes_see_its_convolutions(others: list[str]) -> None:
    """In one call and in two; the strided convolution of a branch becomes dilated like any other."""
    model, x = net().eval(), image()
    torch.manual_seed(1)
    one = pr.transform(model, [SMALL, *others], example_inputs=x, verify="full")
    torch.manual_seed(1)
    two = pr.transform(pr.transform(model, [SMALL], example_inputs=x), others, example_inputs=x, verify="full")
    changed = [d.site for d in pr.report(one).plans[-1].decisions if d.status == "rewritten" and ".left." in d.site]
    assert changed
    two.load_state_dict(one.state_dict())
    torch.testing.assert_close(one(x), two(x), **TIGHT)


def test_a_selector_that_cuts_a_block_refuses_it() -> None:
    plan = pr.plan(net(), [SMALL], example_inputs=image(), include="4.conv2", allow_no_effect=True)
    assert {d.code for d in plan.decisions if d.site.startswith("4.conv")} == {"selector-cuts-match"}
    assert not plan.edits


def test_a_hook_on_a_norm_that_would_go_refuses_the_block() -> None:
    model = net()
    model[4].bn2.register_forward_hook(lambda m, a, o: None)
    plan = pr.plan(model, [SMALL], example_inputs=image())
    assert {d.code for d in plan.decisions if d.site.startswith("4.conv")} == {"state-hooks"}
    assert {d.code for d in plan.decisions if d.site.startswith("3.conv")} == {"rewritten"}


class Lending(nn.Module):
    """A bottleneck whose first norm is also used elsewhere."""

    def __init__(self, use: str) -> None:
        super().__init__()
        self.c1, self.bn = nn.Conv2d(32, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.c2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.c3, self.bn3 = nn.Conv2d(8, 32, 1, bias=False), nn.BatchNorm2d(32)
        self.use = use
        if use == "named":
            self.other = nn.ModuleList([self.bn])

    def forward(self, x: Tensor, z: Tensor) -> Any:
        y = torch.relu(self.bn(self.c1(x)))
        y = torch.relu((self.bn if self.use == "twice inside" else self.bn2)(self.c2(y)))
        y = torch.relu(self.bn3(self.c3(y)) + x)
        if self.use == "called":
            return y, self.bn(z)
        return y, z * self.bn.weight.sum() if self.use == "read" else z


def lending(use: str) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    inputs = (torch.randn(2, 32, 9, 9, dtype=torch.float64), torch.randn(2, 8, 9, 9, dtype=torch.float64))
    return Lending(use).double(), inputs


@pytest.mark.parametrize(("use", "told"), [("called", "bn, which"), ("read", "bn, which"), ("named", "bn and other.0")])
def test_a_norm_that_is_used_elsewhere_refuses_the_block(use: str, told: str) -> None:
    model, inputs = lending(use)
    plan = pr.plan(model, [ResnetGcn((5,), (7,))], example_inputs=inputs, allow_no_effect=True)
    assert {d.site: d.code for d in plan.decisions} == dict.fromkeys(("c1", "c2", "c3"), "shared-module")
    assert plan.decisions[0].reason.startswith(told)
    assert not plan.edits


def test_a_norm_that_is_used_twice_inside_the_block_goes_and_comes_back() -> None:
    model, inputs = lending("twice inside")
    new = pr.transform(model, [ResnetGcn((5,), (7,))], example_inputs=inputs, verify="full")
    assert not list(new.bn.parameters())
    assert type(pr.revert(new).bn) is nn.BatchNorm2d
    assert torch.equal(new.eval()(*inputs)[0], model.eval()(*inputs)[0])


def test_a_kept_block_keeps_the_norm_that_it_shares() -> None:
    """Norms of the last but one stage, which is not asked for, and of the last are one."""
    model = net()
    model[4].bn1 = model[3].bn1
    plan = pr.plan(model, [ResnetGcn((5,), (7,))], example_inputs=image(), allow_no_effect=True)
    assert {d.code for d in plan.decisions if d.site.startswith("4.conv")} == {"shared-module"}
    assert not plan.edits


def test_without_blocks_it_is_an_error() -> None:
    with pytest.raises(NoEffectError, match="resnet-gcn would change nothing: 1 no-match"):
        pr.plan(nn.Sequential(nn.Conv2d(3, 4, 3)), [NAME], example_inputs=torch.ones(1, 3, 9, 9))


@pytest.mark.zoo
def test_resnet_50_costs_what_the_convention_says() -> None:
    """Multiply-accumulates of all convolutions at 224 x 224, without biases, norms and the classifier; the stride of a
    stage is in its first 1 x 1 convolution, as in the original ResNet."""
    resnet = pytest.importorskip("pytorchcv.models.resnet")
    x = torch.empty(1, 3, 224, 224, device="meta")
    with torch.device("meta"):
        model = resnet.resnet50().eval()
    plan = pr.plan(model, [NAME], example_inputs=x)
    assert plan.passes[0].before.macs == 3855925248
    assert plan.passes[0].after.macs == 3589458544
    assert 3230e6 < plan.passes[0].after.macs < 3667e6
    changed = [d.site for d in plan.decisions if d.status == "rewritten"]
    assert len(changed) == 3 * (6 + 3)
    assert all(site.startswith(("features.stage3", "features.stage4")) for site in changed)
