"""What padding is made of, and how far it reaches: real bugs of real tools, a test each."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from plain import circular_width, far, layer, partial
from torch import Tensor, nn
from writing.nets import CIRCULAR, PARTIAL, REFLECT, picture

import padrewrite as pr


def one(**kwargs: Any) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3, **{"padding": 1, **kwargs}))


class TestRow06:
    """segmentation_models.pytorch#183: the stride-bearing convolution is dilated too, and kh is used for both axes."""

    @pytest.mark.parametrize("kernel", [(3, 3), (5, 3), (1, 7), (2, 4), (6, 5)])
    @pytest.mark.parametrize("stride", [(2, 2), (2, 3), (3, 1)])
    def test_the_grid(self, kernel: tuple[int, int], stride: tuple[int, int]) -> None:
        """Kernels of any shape, sizes of any remainder: the old output stands in the new one, borders included."""
        pads = (kernel[0] // 2, kernel[1] // 2)
        first, second = nn.Conv2d(3, 4, kernel, stride, pads), nn.Conv2d(4, 2, kernel, 1, pads)
        model = nn.Sequential(first, nn.ReLU(), second).double()
        sizes = [(19, 23), (20, 24), (18, 29)]
        new: Any = pr.transform(model, ["output-stride{stride=1}"], example_inputs=torch.randn(2, 3, 19, 23).double())
        assert (new[0].dilation, new[0].padding) == ((1, 1), pads), "the one that loses its stride keeps its rate"
        spread = tuple(s if k > 1 else 1 for s, k in zip(stride, kernel))
        assert new[2].dilation == spread, "each axis has the rate of its own stride"
        assert new[2].padding == (pads[0] * stride[0], pads[1] * stride[1])
        for height, width in sizes:
            x = torch.randn(2, 3, height, width, dtype=torch.float64)
            assert far(new(x)[..., :: stride[0], :: stride[1]], model(x)) < 1e-10


def test_row_08_wrong_axis() -> None:
    """pytorch#37844: circular padding on the wrong axis; height, width and their paddings all differ."""
    model = nn.Sequential(nn.Conv2d(3, 4, (5, 3), padding=(2, 1), stride=(1, 2)))
    x = picture(height=7, width=12)
    new = pr.transform(model, CIRCULAR, example_inputs=x)
    assert far(new(x), layer(circular_width, x, model[0])) < 1e-5
    other = pr.transform(model, ["padding-mode{mode=circular,axes=[-2]}"], example_inputs=x)
    flipped = nn.Conv2d(3, 4, (3, 5), padding=(1, 2), stride=(2, 1))
    with torch.no_grad():
        flipped.weight.copy_(model[0].weight.mT)
        flipped.bias.copy_(model[0].bias)  # pyright: ignore
    assert far(other(x), layer(circular_width, x.mT, flipped).mT) < 1e-5


def test_row_09_stale_padding() -> None:
    """pytorch#51711: changing a reflect convolution leaves its precomputed padding stale."""
    model = one(padding="same", dilation=2, padding_mode="circular")
    new: Any = pr.transform(model, REFLECT)
    wanted = F.conv2d(F.pad(picture(), (2, 2, 2, 2), mode="reflect"), new[0].weight, new[0].bias, dilation=2)
    assert far(new(picture()), wanted) < 1e-5
    assert pr.revert(new)[0].padding_mode == "circular"  # pyright: ignore
    assert torch.equal(new(picture()), model(picture()))


def test_row_09_stale_padding_of_another_rate() -> None:
    """The same where the dilation changes and the mode stays: what torch derived when it was built must follow."""
    model = nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1), nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"))
    x = picture(height=11, width=13)
    new: Any = pr.transform(model, ["output-stride{stride=1}"], example_inputs=x)
    assert type(new[1]) is nn.Conv2d
    fine = F.conv2d(x, model[0].weight, model[0].bias, padding=1)
    wanted = F.conv2d(F.pad(fine, (2, 2, 2, 2), mode="reflect"), model[1].weight, model[1].bias, dilation=2)
    assert far(new(x), wanted) < 1e-5
    assert far(new(x)[..., ::2, ::2], model(x)) < 1e-5
    assert torch.equal(pr.revert(new)(x), model(x))


class TestRow10:
    """NVIDIA/partialconv: stale state of every kind."""

    def test_no_nan_in_half(self) -> None:
        """The epsilon of the ratio underflows in float16."""
        for dtype in (torch.float16, torch.bfloat16):
            new = pr.transform(one(padding=3).to(dtype), PARTIAL)
            assert torch.isfinite(new(picture(1, 2, 2).to(dtype))).all()

    def test_after_a_masked_call(self) -> None:
        new: Any = pr.transform(one(), PARTIAL)
        before = new(picture())
        mask = torch.ones(2, 1, 11, 13)
        mask[..., 3:] = 0
        masked, _ = new[0](picture(), mask)
        assert not torch.equal(masked, before)
        assert torch.equal(new(picture()), before)

    def test_after_another_dtype_and_size(self) -> None:
        model = one()
        new: Any = pr.transform(model, PARTIAL)
        first = new(picture())
        wide = new.double()(picture(height=30).double())
        assert far(wide, layer(partial, picture(height=30).double(), copy.deepcopy(model).double()[0])) < 1e-12
        assert torch.equal(new.float()(picture()), first)

    def test_training_after_inference_mode(self) -> None:
        new = pr.transform(one(), PARTIAL)
        with torch.inference_mode():
            new(picture())
        new(picture()).sum().backward()
        assert all(p.grad is not None for p in new.parameters())

    def test_reflected_padding_is_not_corrected(self) -> None:
        model = one(padding_mode="reflect")
        plan = pr.plan(model, PARTIAL, allow_no_effect=True)
        assert [(d.status, d.code) for d in plan.decisions] == [("kept", "non-zero-padding")]

    def test_grouped_masks(self) -> None:
        """The count is of positions; dividing by the wrong number of channels scales everything."""
        model = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, groups=2))
        new: Any = pr.transform(model, PARTIAL)
        x = picture(channels=4)
        out, mask = new[0](x, torch.ones(2, 1, 11, 13))
        assert far(out, partial(x, model[0].weight, model[0].bias, 1, 1, 1, 2)) < 1e-5
        assert mask.all()

    @pytest.mark.filterwarnings("ignore")
    def test_export_after_a_warm_call(self) -> None:
        new = pr.transform(one().eval(), PARTIAL)
        new(picture())
        dynamic = torch.export.Dim.DYNAMIC
        shapes = ({2: dynamic, 3: dynamic},)
        exported = torch.export.export(new, (picture(),), dynamic_shapes=shapes).module()
        assert far(exported(picture(2, 20, 9)), new(picture(2, 20, 9))) < 1e-6

    def test_nothing_cached_is_pickled(self) -> None:
        new = pr.transform(one(), PARTIAL)
        cold = len(pickle.dumps(new))
        new(picture(height=64, width=64))
        assert len(pickle.dumps(new)) == cold
        assert set(dict(new.named_buffers())) == set()


class TestRow11:
    """rishizek#10, DeepLabV3-Tensorflow#13: multi-grid on 1x1 convolutions, or without the rate of the stage."""

    class Unit(nn.Module):
        def __init__(self, stride: int = 1) -> None:
            super().__init__()
            self.into, self.conv, self.out = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 2, 3, stride, 1), nn.Conv2d(2, 4, 1)
            self.beside = nn.Conv2d(4, 4, 1, stride) if stride > 1 else nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.conv(self.into(x)).relu()) + self.beside(x)

    @pytest.mark.parametrize(("stride", "rates"), [(16, (2, 4, 8)), (8, (4, 8, 16))])
    def test_the_rates_of_the_last_stage(self, stride: int, rates: tuple[int, ...]) -> None:
        """OS 16 + (1, 2, 4) = (2, 4, 8), and twice that at OS 8; no 1x1 convolution is dilated."""
        stem = [nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)]
        units = [self.Unit(2), self.Unit(), self.Unit(2), self.Unit(), self.Unit()]
        model = nn.Sequential(*stem, *units).eval()
        spec = f"output-stride{{stride={stride},multi_grid=[1,2,4]}}"
        x = picture(1, 65, 70)
        new: Any = pr.transform(model, [spec], example_inputs=x, verify="full")
        assert tuple(unit.conv.dilation for unit in new[5:]) == tuple((r, r) for r in rates)
        pointwise = [m for m in new.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
        assert len(pointwise) == 12
        assert {(m.dilation, m.padding, m.stride) for m in pointwise[4:]} == {((1, 1), (0, 0), (1, 1))}
        assert -(-65 // stride) == new(x).shape[2]


class Uneven(nn.Module):
    """Asymmetric padding: folded into nothing, made by F.pad before a layer without padding."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (2, 0, 0, 1)))


def test_row_15_asymmetric_padding() -> None:
    """pytorch#17150, pytorch#3867: an explicit pad and a convolution without padding are one padded convolution."""
    model = Uneven()
    x = picture()
    plan = pr.plan(model, PARTIAL, example_inputs=x)
    assert plan.decisions[0].before["padding"] == ((0, 1), (2, 0))
    ring = F.pad(torch.ones(1, 1, 11, 13), (2, 0, 0, 1))
    count = F.conv2d(ring, torch.ones(1, 1, 3, 3))
    bare = F.conv2d(F.pad(x, (2, 0, 0, 1)), model.conv.weight)
    bias = model.conv.bias.reshape(1, -1, 1, 1)  # pyright: ignore
    assert far(pr.apply(model, plan)(x), bare * 9 / count + bias) < 1e-5
    wrapped = torch.cat([x[..., -2:], x], -1)
    goal = F.conv2d(F.pad(wrapped, (0, 0, 0, 1)), model.conv.weight, model.conv.bias)
    assert far(pr.transform(model, CIRCULAR, example_inputs=x)(x), goal) < 1e-5


def test_row_20_field_wrong_on_branches() -> None:
    """rfa_toolbox, torch-receptive-field#6, torch-receptive-field#17: what no padding reaches is found by brute force.

    End to end, the outputs that ``verify`` calls interior are those whose gradient support, in a branched and
    dilated network, never leaves the image.
    """

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = (
                nn.Conv2d(3, 3, 3, padding=2, dilation=2),
                nn.Conv2d(3, 3, (5, 1), padding=(2, 0), stride=2),
            )
            self.c = nn.Conv2d(3, 3, 3, padding=1, stride=2)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.a(x)) + self.b(x)

    model, (height, width) = Branches().eval(), (24, 20)
    new = pr.transform(model, PARTIAL, example_inputs=picture(1, height, width))
    found = pr.verify(new, example_inputs=picture(1, height, width))
    interior = next(e for e in found.evidence if e.site == "end to end" and e.contract == "interior")
    bare = copy.deepcopy(model).double()
    with torch.no_grad():
        for parameter in bare.parameters():
            parameter.fill_(1.0)
    margin = 8  # more than any window reaches: the same network on a larger image, at whole strides
    frame = torch.zeros(1, 3, height + 2 * margin, width + 2 * margin, dtype=torch.float64)
    frame[..., margin:-margin, margin:-margin] = 1
    outside, inside = (1 - frame).requires_grad_(), 0
    out = bare(outside)[0, 0, margin // 2 : -margin // 2, margin // 2 : -margin // 2]
    assert out.shape == model(picture(1, height, width)).shape[2:]
    for value in out.flatten():
        (support,) = torch.autograd.grad(value, outside, retain_graph=True)
        inside += not bool((support * (1 - frame)).any())
    assert found.ok
    assert inside > 0
    assert interior.positions == 3 * inside
