"""Odd kernels made even: parameters, sizes and places of real networks, and which branches change together."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from expected import FEW, TIGHT, image
from hypothesis import given
from pytorchcv.models.densenet import DenseNet, densenet121
from pytorchcv.models.preresnet_cifar import CIFARPreResNet
from pytorchcv.models.resnet import ResNet, resnet50
from pytorchcv.models.resnet_cifar import CIFARResNet
from pytorchcv.models.resnext import ResNeXt
from torch import Tensor, nn

import padrewrite as pr
from padrewrite.analyses.building import build
from padrewrite.errors import NoEffectError, PassError, RevertError
from padrewrite.fuzzing.drawing import networks
from padrewrite.fuzzing.networks import NetSpec
from padrewrite.ops.symmetric import symmetric_conv

ODD = "symmetric-even{from_odd=True}"


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def half_width() -> nn.Module:
    """ResNet-50 with half the channels in every stage."""
    stages = [[128] * 3, [256] * 4, [512] * 6, [1024] * 3]
    return ResNet(channels=stages, init_block_channels=32, bottleneck=True, conv1_stride=True)


def cifar(layers: int) -> nn.Module:
    """A pre-activation ResNet of basic blocks for CIFAR-100, 32-64-128 channels."""
    stages = [[width] * ((layers - 2) // 6) for width in (32, 64, 128)]
    return CIFARPreResNet(channels=stages, init_block_channels=32, bottleneck=False, num_classes=100)


FIGURES: dict[str, tuple[Callable[[], nn.Module], int, int, dict[str, int]]] = {
    "ResNet-50": (resnet50, 25_557_032, 19_269_672, {"rewritten": 16, "odd-kernel": 37}),
    "ResNet-50, half width": (half_width, 6_917_640, 5_345_800, {"rewritten": 16, "odd-kernel": 37}),
    "DenseNet-121": (densenet121, 7_978_856, 6_791_016, {"rewritten": 58, "odd-kernel": 62}),
}


@pytest.mark.parametrize("name", FIGURES)
def test_parameters_of_the_paper(name: str) -> None:
    """[C2sp] Tables 2 and 3; the 7x7 stems stay."""
    make, before, after, codes = FIGURES[name]
    model = make()
    new = pr.transform(model, [ODD], verify="off")
    assert (parameters(model), parameters(new)) == (before, after)
    decided = [d.code for d in pr.report(new).decisions]
    assert {code: decided.count(code) for code in decided} == codes
    (summary,) = pr.report(new).plans[0].passes
    assert summary.after.parameters - summary.before.parameters == after - before


@pytest.mark.parametrize(("layers", "after"), [(20, 501_892), (56, 1_539_460), (110, 3_095_812)])
def test_parameters_of_the_paper_on_cifar(layers: int, after: int) -> None:
    """[C2sp] Table 1: the first convolution has too few channels and stays, the strided ones average first."""
    model, x = cifar(layers), torch.randn(1, 3, 32, 32)
    plan = pr.plan(model, [ODD], example_inputs=x)
    kept = [(d.site, d.code) for d in plan.decisions if d.status != "rewritten"]
    assert kept == [("features.init_block", "few-channels")]
    (summary,) = plan.passes
    assert parameters(model) + summary.after.parameters - summary.before.parameters == after
    if layers == 20:
        assert parameters(pr.apply(model, plan)) == after


class Block(nn.Module):
    """A residual block of two branches, and what joins them."""

    def __init__(self, main: nn.Module, side: nn.Module, join: str = "add") -> None:
        super().__init__()
        self.main, self.side, self.join = main, side, join

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.main(x), self.side(x)
        return a + b if self.join == "add" else torch.cat([a, b], 1)


def conv(channels: int = 4, out: int = 4, kernel: Any = 3, stride: Any = 1, **options: Any) -> nn.Conv2d:
    padding = options.pop("padding", tuple(k // 2 for k in (kernel if isinstance(kernel, tuple) else (kernel,) * 2)))
    return nn.Conv2d(channels, out, kernel, stride, padding=padding, **options)


def down(channels: int = 4, **options: Any) -> nn.Conv2d:
    return conv(channels, stride=2, **options)


def point(channels: int = 4, stride: int = 2) -> nn.Conv2d:
    return nn.Conv2d(channels, 4, 1, stride)


def rewrite(model: nn.Module, x: Tensor, spec: str | pr.Pass = ODD, verify: str = "full") -> nn.Module:
    return pr.transform(model, [spec], example_inputs=x, verify=verify)


def test_before_and_after() -> None:
    model = nn.Sequential(conv(6), Block(nn.Sequential(down(), nn.ReLU(), conv(kernel=5)), point())).double()
    new = rewrite(model, image(15, 18, channels=6))
    assert repr(new) == (
        "Sequential(\n"
        "  (0): Assembled(\n"
        "    even.0 2x2\n"
        "    (even): Sequential(\n"
        "      (0): SymmetricConv2d(6, 4, kernel_size=(2, 2), stride=(1, 1), padding=(1, 1), order='balanced')\n"
        "    )\n"
        "  )\n"
        "  (1): Block(\n"
        "    (main): Sequential(\n"
        "      (0): Assembled(\n"
        "        pooled.1 2x2\n"
        "        (pooled): Sequential(\n"
        "          (0): PoolLayer(avg 2x2, stride 2x2, ceil)\n"
        "          (1): SymmetricConv2d(4, 4, kernel_size=(2, 2), stride=(1, 1), padding=(1, 1), order='balanced')\n"
        "        )\n"
        "      )\n"
        "      (1): ReLU()\n"
        "      (2): Assembled(\n"
        "        even.0 4x4\n"
        "        (even): Sequential(\n"
        "          (0): SymmetricConv2d(4, 4, kernel_size=(4, 4), stride=(1, 1), padding=(2, 2), order='balanced')\n"
        "        )\n"
        "      )\n"
        "    )\n"
        "    (side): Assembled(\n"
        "      pooled.1 1x1\n"
        "      (pooled): Sequential(\n"
        "        (0): PoolLayer(avg 2x2, stride 2x2, ceil)\n"
        "        (1): Conv2d(4, 4, kernel_size=(1, 1), stride=(1, 1))\n"
        "      )\n"
        "    )\n"
        "  )\n"
        ")"
    )
    text = str(pr.report(new))
    assert "k3 s2 p1 d1 -> avg 2x2 2x2 symmetric" in text
    assert all("relative error" in d.reason and d.reason.endswith("fine-tune") for d in pr.report(new).decisions)
    assert {d.contract for d in pr.report(new).decisions} == {"shape"}
    errors = sorted(d.weight_error or 0 for d in pr.report(new).decisions)
    assert f"worst {errors[-1]:.2g}, median {median(errors):.2g}: fine-tune" in text


@pytest.mark.parametrize("sizes", [(57, 57), (56, 57), (1, 2), (3, 5)])
def test_odd_sizes_are_halved_upwards_on_both_branches(sizes: tuple[int, int]) -> None:
    """57 becomes 29 as before; the last cell of an odd map is the mean of what is there. By hand, in torch calls."""
    model = Block(down(), point()).double()
    x = image(*sizes, channels=4)
    new = rewrite(model, x)
    assert new(x).shape == model(x).shape == (2, 4, *(-(-n // 2) for n in sizes))
    height, width = (-(-n // 2) for n in sizes)
    cells = [x[..., 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((-2, -1)) for i in range(height) for j in range(width)]
    mean = torch.stack(cells, -1).reshape(2, 4, height, width)
    sums = {0: model.main.weight[..., :1], 1: model.main.weight[..., 1:].sum(-1, keepdim=True)}
    rows = torch.cat([sums[0], sums[1], torch.zeros_like(sums[0])], -1)
    both = torch.cat([rows[..., :1, :], rows[..., 1:, :].sum(-2, keepdim=True), torch.zeros_like(rows[..., :1, :])], -2)
    corners = [both[:, 0:1, 1:, 1:], both[:, 1:2, :2, :2], both[:, 2:3, 1:, :2], both[:, 3:4, :2, 1:]]
    wanted = symmetric_conv(mean, torch.cat(corners, 1), model.main.bias)
    wanted = wanted + F.conv2d(mean, model.side.weight, model.side.bias)
    torch.testing.assert_close(new(x), wanted, **TIGHT)


REWRITTEN, KEPT = "rewritten", "odd-kernel"
NETS: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "basic": (lambda: Block(nn.Sequential(down(), conv()), point()), [REWRITTEN] * 3),
    "stride in the first point": (
        lambda: Block(nn.Sequential(point(), conv(), point(stride=1)), point()),
        [KEPT, REWRITTEN, KEPT, KEPT],
    ),
    "stride in the middle": (
        lambda: Block(nn.Sequential(point(stride=1), down(), point(stride=1)), point()),
        [KEPT, REWRITTEN, KEPT, REWRITTEN],
    ),
    "both joined by channels": (lambda: Block(down(), point(), "cat"), [REWRITTEN] * 2),
    "an average beside it, misaligned until now": (
        lambda: Block(down(), nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), point(stride=1))),
        [REWRITTEN, KEPT],
    ),
    "two such branches": (lambda: Block(down(kernel=3), down(kernel=5)), [REWRITTEN] * 2),
    "two strides in a row beside one of four": (
        lambda: Block(nn.Sequential(down(), down()), point(stride=4)),
        [REWRITTEN] * 3,
    ),
    "a maximum beside it": (
        lambda: Block(down(), nn.MaxPool2d(3, 2, 1)),
        ["unlike-branches"],
    ),
    "a larger kernel beside it": (lambda: Block(down(), down(kernel=7)), ["unlike-branches", KEPT]),
    "one branch cannot": (lambda: Block(down(), down(groups=4)), ["unlike-branches", "depthwise"]),
    "enlarged again": (
        lambda: Block(nn.Sequential(down(), nn.ConvTranspose2d(4, 4, 3, 2, 1, output_padding=1)), nn.Identity()),
        ["unlike-branches", "transposed"],
    ),
    "enlarged to where the cells are": (
        lambda: Block(nn.Sequential(down(), nn.ConvTranspose2d(4, 4, 2, 2)), nn.Identity()),
        [REWRITTEN, "transposed"],
    ),
    "the output as fine as the input": (
        lambda: nn.Sequential(down(), nn.ConvTranspose2d(4, 4, 3, 2, 1, output_padding=1)),
        ["unlike-branches", "transposed"],
    ),
    "a gate of one position": (
        lambda: nn.Sequential(down(), Block(conv(), nn.Sequential(nn.AdaptiveAvgPool2d(1), point(stride=1)))),
        [REWRITTEN, REWRITTEN, KEPT],
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_branches_change_together_or_not_at_all(name: str) -> None:
    """The analysis of the new network, which knows nothing of this pass, finds no merge to have come apart."""
    make, codes = NETS[name]
    model = make().double()
    x = image(16, 12, channels=4)
    plan = pr.plan(model, [ODD], example_inputs=x, allow_no_effect=True)
    assert [d.code for d in plan.decisions] == codes
    new = rewrite(model, x, verify="full") if REWRITTEN in codes else pr.apply(model, plan)
    assert new(x).shape == model(x).shape
    assert_nothing_came_apart(model, new, x)


def assert_nothing_came_apart(model: nn.Module, new: nn.Module, x: Tensor) -> None:
    before, after = (pr.analyze(m, example_inputs=x) for m in (model, new))
    for code in ("misaligned-merge", "shifted-output", "half-pixel-shift"):
        assert {f.site for f in after.of(code)} <= {f.site for f in before.of(code)}


def small(kind: str) -> nn.Module:
    """The features of a real network, narrow, without the pool that wants one input size."""
    make: dict[str, Callable[[], Any]] = {
        "resnet": lambda: ResNet([[16], [32, 32]], 16, bottleneck=True, conv1_stride=False),
        "preresnet": lambda: CIFARPreResNet([[8], [12], [16]], 8, bottleneck=False, num_classes=10),
        "densenet": lambda: DenseNet([[12, 16], [12, 16]], 8),
        "resnext": lambda: ResNeXt([[32], [64]], 16, cardinality=4, bottleneck_width=16),
    }
    features = make[kind]().features.double().eval()
    features.final_pool = nn.Identity()
    for module in features.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return features


@pytest.mark.parametrize("kind", ["resnet", "preresnet", "densenet", "resnext"])
def test_real_networks(kind: str) -> None:
    model, x = small(kind), image(37, 46)
    before, first = {key: value.clone() for key, value in model.state_dict().items()}, model(x)
    new = rewrite(model, x)
    assert pr.report(new).verification is not None
    assert pr.report(new).verification.ok
    changed = [d for d in pr.report(new).decisions if d.status == REWRITTEN]
    assert len(changed) == {"resnet": 4, "preresnet": 8, "densenet": 4, "resnext": 2}[kind]
    assert new(x).shape == first.shape
    assert_nothing_came_apart(model, new, x)
    for site in pr.analyze(new, example_inputs=x).sites.values():
        assert all(phase is not None and phase.low == phase.high for phase in site.phase)
    again = pr.plan(new, [ODD], example_inputs=x)
    assert not again.edits
    # Trained on, then given the original's weights again: they are carried over anew.
    own = new(x)
    with torch.no_grad():
        for parameter in new.parameters():
            parameter.add_(1)
    new.load_state_dict(before, strict=True)
    torch.testing.assert_close(new(x), own, **TIGHT)
    saved = {key: value.clone() for key, value in new.state_dict().items()}
    new.load_state_dict(saved, strict=True)
    stored = pickle.loads(pickle.dumps(new))
    with pytest.raises(RevertError, match="original"):
        pr.revert(stored)
    assert torch.equal(stored(x), new(x))
    assert torch.equal(pr.revert(stored, original=model)(x), first)
    assert torch.equal(pr.revert(new)(x), first)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_only_the_sizes_that_are_meant() -> None:
    layers = [conv(kernel=3), conv(kernel=5), conv(kernel=7), conv(kernel=(1, 7)), conv(kernel=(3, 5)), conv(kernel=1)]
    model, x = nn.Sequential(*layers), torch.randn(1, 4, 12, 12)
    rewritten = {
        "True": [0, 1, 4],
        "[3]": [0],
        "[7]": [2, 3],
        "[3,5,7]": [0, 1, 2, 3, 4],
    }
    for value, wanted in rewritten.items():
        plan = pr.plan(model, [f"symmetric-even{{from_odd={value}}}"], example_inputs=x)
        assert [i for i, d in enumerate(plan.decisions) if d.status == REWRITTEN] == wanted
        assert {d.code for d in plan.decisions} == {REWRITTEN, KEPT}
        again = pr.Plan.from_json(plan.to_json())
        torch.testing.assert_close(pr.apply(model, again)(x), pr.apply(model, plan)(x))
    for wrong in ("[2]", "[]", "sometimes", "3", "[a]"):
        with pytest.raises(PassError, match=r"neither True nor a list of odd kernel sizes, such as \[3\]"):
            pr.plan(model, [f"symmetric-even{{from_odd={wrong}}}"], example_inputs=x)
    with pytest.raises(NoEffectError, match="odd-kernel"):
        pr.plan(model, ["symmetric-even{from_odd=[9]}"], example_inputs=x)


@pytest.mark.parametrize(
    ("make", "channels", "rank"),
    [
        (lambda: nn.Conv1d(4, 3, 5, padding=4, dilation=2), 4, 1),
        (lambda: nn.Sequential(nn.ConstantPad1d((4, 0), 0.0), nn.Conv1d(4, 3, 3, dilation=2)), 4, 1),
        (lambda: nn.Conv1d(8, 4, 5, stride=3, padding=2, groups=2), 8, 1),
        (lambda: nn.Conv2d(8, 4, 3, padding=1, groups=2, padding_mode="reflect"), 8, 2),
        (lambda: nn.Sequential(nn.ZeroPad2d((1, 2, 0, 1)), nn.Conv2d(4, 4, 3, padding=1)), 4, 2),
        (lambda: nn.Conv2d(4, 4, 3, stride=(2, 1), padding=1, padding_mode="circular"), 4, 2),
        (lambda: nn.Conv2d(4, 4, (3, 1), padding=(1, 0)), 4, 2),
        (lambda: nn.Conv3d(8, 4, 3, padding=1), 8, 3),
        (lambda: nn.Conv3d(8, 4, 3, stride=2, padding=1), 8, 3),
    ],
    ids=[
        *("1-D, dilated", "causal", "1-D, stride 3, groups", "groups, reflected", "padded outside"),
        *("one axis strided, wrapped around", "3x1", "3-D", "3-D, stride 2"),
    ],
)
@pytest.mark.parametrize("order", ["balanced", "raster"])
def test_any_window_keeps_sizes_and_places(make: Callable[[], nn.Module], channels: int, rank: int, order: str) -> None:
    model = nn.Sequential(make()).double()
    x = image(*(11, 8, 9)[:rank], channels=channels)
    new = rewrite(model, x, f"symmetric-even{{from_odd=True,order={order}}}")
    assert new(x).shape == model(x).shape
    (old,), (site,) = (pr.analyze(m, example_inputs=x).sites.values() for m in (model, new))
    for before, after in zip(old.phase, site.phase, strict=True):
        assert before is not None
        assert after is not None
        assert (after.scale, after.offset) == (before.scale, before.offset + (before.scale - 1) / 2)
    assert site.parameters < old.parameters


@FEW
@given(networks())
def test_random_networks_keep_their_sizes_and_nothing_comes_apart(spec: NetSpec) -> None:
    model, x = spec.build(), spec.draw_input()
    plan = pr.plan(model, ["symmetric-even{from_odd=[3,5,7]}"], example_inputs=x, allow_no_effect=True)
    new = pr.apply(model, plan)
    assert [out.shape for out in new(x)] == [out.shape for out in model(x)]
    before, after = (pr.analyze(m, example_inputs=x) for m in (model, new))
    for code in ("misaligned-merge", "shifted-output", "half-pixel-shift"):
        assert len(after.of(code)) <= len(before.of(code))


@pytest.mark.parametrize(
    ("layer", "code"),
    [
        (nn.Conv2d(1, 4, 3), "few-channels"),
        (nn.Conv2d(2, 4, 3, groups=2), "depthwise"),
        (nn.Conv2d(6, 4, 3, groups=2), "few-channels"),
        (nn.Conv2d(10, 4, 3, groups=2), "odd-channels"),
        (nn.Conv3d(6, 4, 3), "few-channels"),
        (nn.Conv2d(6, 4, (3, 1)), REWRITTEN),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_channels_that_cannot_be_read_from_all_sides(layer: Any, code: str) -> None:
    """Each group must have one for each direction, and as many on one side as on the other."""
    x = torch.randn(1, layer.in_channels, *(7,) * len(layer.kernel_size))
    (found,) = pr.plan(nn.Sequential(layer), [ODD], example_inputs=x, allow_no_effect=True).decisions
    assert found.code == code


def test_a_group_is_rewritten_whole() -> None:
    model, x = Block(down(), point()), torch.randn(1, 4, 9, 8)
    plan = pr.plan(model, [ODD], example_inputs=x, include="main", allow_no_effect=True)
    assert [d.code for d in plan.decisions] == ["selector-cuts-match"] * 2
    model.side = nn.Sequential(model.main, nn.ReLU())  # the same layer in both branches
    new = rewrite(model, x)
    assert new.side[0] is new.main
    assert_nothing_came_apart(model, new, x)


def test_partial_padding_and_the_other_even_kernels_with_it() -> None:
    model, x = nn.Sequential(conv(), conv(kernel=2, padding="same"), conv()).double(), image(9, 8, channels=4)
    together = pr.transform(model, [ODD, "partial-padding"], example_inputs=x, verify="full")
    found = {d.site: d.status for d in pr.report(together).decisions if d.pass_name == "symmetric-even"}
    assert found == {"0": REWRITTEN, "1": REWRITTEN, "2": REWRITTEN}
    first = pr.transform(model, ["partial-padding", ODD], example_inputs=x, verify="full")
    torch.testing.assert_close(first(x), together(x), **TIGHT)


def test_lost_strides_before_and_after() -> None:
    """The pool of a strided layer loses its stride as any does; a layer that has lost its own needs no pool."""
    model, x = Block(nn.Sequential(down(), conv()), point()).double(), image(19, 22, channels=4)
    strides = "output-stride{stride=1}"
    after = pr.transform(model, [ODD, strides], example_inputs=x, verify="full")
    torch.testing.assert_close(after(x)[..., ::2, ::2], rewrite(model, x)(x), **TIGHT)
    first = pr.transform(model, [strides, ODD], example_inputs=x, verify="full")
    assert first(x).shape == (2, 4, 19, 22)
    layers = [m for m in first.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (2, 2)]
    assert [m.dilation for m in layers] == [(1, 1), (2, 2)]
    again = pr.transform(model, [strides], example_inputs=x, verify="off")
    again = pr.transform(again, [ODD], example_inputs=x, verify="full")
    torch.testing.assert_close(again(x), first(x), **TIGHT)
    again.load_state_dict(model.state_dict(), strict=True)
    torch.testing.assert_close(again(x), first(x), **TIGHT)
    for new in (after, first, again):
        assert torch.equal(pr.revert(new)(x), model(x))


def resnet_56(kernel: int) -> nn.Module:
    """A narrow ResNet-56 for CIFAR whose 3x3 kernels have another size; even ones are padded more after than before."""
    model = CIFARResNet([[4] * 9, [8] * 9, [16] * 9], 4, bottleneck=False, num_classes=10)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Conv2d) and child.kernel_size == (3, 3) and child.in_channels > 3:
                own = conv(child.in_channels, child.out_channels, kernel, child.stride[0], padding=(kernel - 1) // 2)
                more = (0, 1 - kernel % 2) * 2
                setattr(module, name, nn.Sequential(nn.ZeroPad2d(more), own) if any(more) else own)
    return model


def test_information_left_at_the_end_of_resnet_56() -> None:
    """[C2sp] Section 3.2 on the real network: with skips, and averages in the place of strides.

    The figures of the stack alone are those of the formula, which has its own tests.
    """
    x, left = torch.randn(1, 3, 32, 32), dict[str, float]()

    def note(name: str, graph: pr.Graph | None) -> None:
        assert graph is not None
        border = list(build(graph, name, None).sites.values())[-1].border
        assert border is not None
        left[name] = border.q

    note("C2", pr.record(resnet_56(2), example_inputs=x))
    note("C4", pr.record(resnet_56(4), example_inputs=x))
    note("C3", pr.record(resnet_56(3), example_inputs=x))
    note("C2sp", pr.plan(resnet_56(3), [ODD], example_inputs=x).predicted_graph)
    note("C4sp", pr.plan(resnet_56(5), [ODD], example_inputs=x).predicted_graph)
    assert left["C2sp"] > left["C3"] > left["C4sp"] > 2 * max(left["C2"], left["C4"])


@pytest.mark.compile
def test_the_backend_refuses_new_parameters() -> None:
    model, x = nn.Sequential(conv(), down()), torch.randn(1, 4, 9, 8)
    compiled = pr.compile(model, passes=[ODD], backend="eager", allow_no_effect=True)
    torch.testing.assert_close(compiled(x), model(x))
    assert {d.code for d in pr.report(compiled).decisions} == {"new-parameters"}
    new = rewrite(model, x)
    torch.testing.assert_close(torch.compile(new, backend="eager", fullgraph=True)(x), new(x))
