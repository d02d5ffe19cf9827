"""Findings whose numbers have an exact answer, and networks that get none."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import padrewrite as pr
from analyses.oracles import NOISE, flatten_weights


class Net(nn.Module):
    """Convolutions of four channels, used by a function: all 3x3, the first two of stride 2."""

    def __init__(self, forward: Callable[[Net, Tensor], Any]) -> None:
        super().__init__()
        self.run = forward
        self.a, self.b = nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)
        self.c, self.d = nn.Conv2d(4, 4, 3, 1, 1), nn.Conv2d(4, 4, 3, 1, 1)

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


def analyse(forward: Callable[[Net, Tensor], Any], size: int = 32) -> pr.Analysis:
    return pr.analyze(Net(forward), example_inputs=torch.zeros(1, 4, size, size))


def upwards(mode: str) -> Callable[[Net, Tensor], Tensor]:
    def forward(net: Net, x: Tensor) -> Tensor:
        fine = net.a(x)
        return net.c(fine + F.interpolate(net.b(fine), fine.shape[2:], mode=mode))

    return forward


def test_a_resize_that_is_no_multiple_is_not_passed_over() -> None:
    for mode in ("nearest", "nearest-exact", "area", "bilinear"):
        for size, message in (
            (64, "add joins branches that sit 1 input px apart"),
            (58, "add joins branches with 2 and 60/29 input px per position"),
            (65, "add joins branches with 2 and 68/33 input px per position"),
        ):
            (found,) = analyse(upwards(mode), size).of("misaligned-merge")
            assert found.message == message


def test_every_end_is_told() -> None:
    """Behind it, and behind what joins it with a branch that is followed; gates are no end."""
    cases: tuple[tuple[Callable[[Net, Tensor], Any], list[str]], ...] = (
        (lambda net, x: net.c(net.a(x).flip(-1)), ["flip reverses dimension -1; 1 convolution behind it"]),
        (lambda net, x: net.d(net.c(x) + net.c(x).flip(-1)), ["flip reverses dimension -1; 1 convolution behind it"]),
        (
            lambda net, x: net.c(net.a(x)[:, :, :1].expand(-1, -1, 5, -1)),
            ["expand gives one position to all of an axis; 1 convolution behind it"],
        ),
        (lambda net, x: net.d(net.c(x) * net.a(x).mean((2, 3), keepdim=True)), []),
        (lambda net, x: net.c(net.a(x).roll(1, 2)), []),
        (lambda net, x: net.c(F.adaptive_avg_pool2d(net.a(x), 6)), []),
    )
    for forward, reasons in cases:
        analysis = analyse(forward)
        found = analysis.of("reasoning-ended")
        told = [f.message.removeprefix(f"spatial reasoning ended at {f.site}, because ") for f in found]
        assert told == reasons
        for site, record in analysis.sites.items():
            assert (record.ended is None) == (site not in [s for f in found for s in f.sites])
            assert record.ended is not None or None not in record.phase


def test_what_is_not_there_is_an_error_that_names_the_closest() -> None:
    analysis = analyse(lambda net, x: net.c(net.a(x)))
    assert analysis.of("gridding") == ()
    with pytest.raises(pr.errors.UnknownNameError, match=r"^griding: no such finding\. Nearest: gridding, "):
        analysis.of("griding")
    for records, name in ((analysis.sites, "aa"), (analysis.nodes, "#input.1")):
        with pytest.raises(KeyError, match=f"^{name}: no such record\\. Nearest: (a|#input.0)\\b"):
            records[name]
        assert records.get(name) is None
        assert name not in records


def test_findings_name_calls_as_the_nodes_do() -> None:
    """Two merges of one module are two sites, and each is the record that is off."""

    def forward(net: Net, x: Tensor) -> Tensor:
        fine = net.c(torch.cat([net.a(x)[:, :2], F.max_pool2d(x, 2)[:, :2]], 1))
        return torch.cat([net.a(fine), F.max_pool2d(fine, 2)], 1)

    analysis = analyse(forward)
    found = analysis.of("misaligned-merge")
    assert [f.site for f in found] == ["#cat.0", "#cat.1"]
    assert [analysis.nodes[f.site].shape[2:] for f in found] == [(16, 16), (8, 8)]
    assert [analysis.nodes[f.site].source for f in found] == [f.source for f in found]


class Correlated(nn.Module):
    """A map convolved with an 8x8 kernel: a parameter, or computed from it or from a map."""

    def __init__(self, kernel: Callable[[nn.Parameter, Tensor], Tensor]) -> None:
        super().__init__()
        self.kernel, self.weight = kernel, nn.Parameter(torch.rand(1, 4, 8, 8))
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(self.conv(x), self.kernel(self.weight, self.conv(x)))


def test_a_correlation_of_two_maps_is_no_kernel_to_change() -> None:
    """A parameter's call is told of, without the cure that refuses what no layer makes."""
    cases: tuple[tuple[Callable[[nn.Parameter, Tensor], Tensor], bool], ...] = (
        (lambda weight, y: weight, True),
        (lambda weight, y: weight.tanh() * 2, True),
        (lambda weight, y: y[..., :8, :8], False),
        (lambda weight, y: F.relu(weight * y.mean((2, 3), keepdim=True)), False),
    )
    for kernel, told in cases:
        analysis = pr.analyze(Correlated(kernel), example_inputs=torch.rand(1, 4, 32, 32))
        assert [f.cure for f in analysis.of("half-pixel-shift")] == ["symmetric-even"] * told
        assert [f.cure for f in analysis.of("oversized-kernel")] == [None] * told


def unread(model: nn.Module, x: Tensor) -> Fraction:
    """Share of an image's pixels without a gradient, by weights of 1."""
    flatten_weights(model)
    x = x.double().requires_grad_()
    (grad,) = torch.autograd.grad(model(x).sum(), x)
    read = grad.abs().sum((0, 1)) > NOISE
    return 1 - Fraction(int(read.sum()), read.numel())


SUBSAMPLED = (
    (nn.Sequential(nn.Conv2d(3, 4, 1, stride=2), nn.Conv2d(4, 4, 3, padding=1)), "0"),
    (nn.Sequential(nn.AvgPool2d(1, 3), nn.Conv2d(3, 4, 3, padding=1)), "0"),
    (nn.Sequential(nn.Upsample(scale_factor=0.25, mode="bilinear"), nn.Conv2d(3, 4, 3, padding=1)), "0#interpolate.0"),
    (nn.Sequential(nn.Conv2d(3, 4, (1, 3), stride=(2, 1)), nn.Conv2d(4, 4, 3, padding=1)), "0"),
)


@pytest.mark.parametrize(("model", "site"), SUBSAMPLED)
@pytest.mark.parametrize("size", [32, 31])
def test_an_input_that_is_read_in_part(model: nn.Module, site: str, size: int) -> None:
    x = torch.rand(1, 3, size, size)
    wanted = unread(model, x)
    (found,) = pr.analyze(model, example_inputs=x.double()).of("dead-positions")
    assert found.message == f"{float(wanted):.0%} of the positions of input 0 are never read: {site} skips them"
    assert (found.site, found.numbers["exact"]) == (site, str(wanted))


def test_inputs_that_are_read_are_no_finding() -> None:
    """By windows side by side, by another branch, as a weight, or by a crop that leaves out on purpose."""
    for forward in (
        lambda net, x: F.conv2d(x, net.a.weight[:, :, :2, :2], None, 2),
        lambda net, x: net.c(x)[..., ::2, ::2] + F.max_pool2d(x, 1, 2),
        lambda net, x: net.c(x[..., :8, :8]),
        lambda net, x: F.conv2d(net.c(F.max_pool2d(x, 1, 2)), x, padding=16),
        lambda net, x: net.c(F.max_pool2d(x, 1, 2)) * x.mean((2, 3), keepdim=True),
    ):
        found = analyse(forward).of("dead-positions")
        assert not any("input" in one.message for one in found), found


def test_what_is_cut_off_is_no_waste() -> None:
    """Of what is computed and of the input, however the piece is cut out."""
    for cut in (
        lambda y: y[:, :, 4:-4, 4:-4],
        lambda y: y[..., :20, :20],
        lambda y: y.narrow(2, 5, 16),
        lambda y: F.pad(y, (-4,) * 4),
        lambda y: y.chunk(2, 3)[1],
        lambda y: y.split([10, 22], 2)[0],
    ):
        for forward in (lambda net, x, cut=cut: cut(net.c(x)), lambda net, x, cut=cut: net.c(cut(x))):
            assert not analyse(forward).of("dead-positions")


def test_gaps_are_waste_beside_a_crop_too() -> None:
    """Every second row is lost; what is cut off of the columns is not."""
    for forward, tensor in (
        (lambda net, x: net.d(net.c(x)[..., ::2, 8:]), "c"),
        (lambda net, x: net.c(x[..., ::2, 8:]), "input 0"),
    ):
        (found,) = analyse(forward).of("dead-positions")
        assert found.numbers["exact"] == "1/2"
        assert found.message.startswith(f"50% of the positions of {tensor} ")


def test_an_input_that_is_no_tensor_has_no_positions() -> None:
    class Scaled(Net):
        def forward(self, x: Tensor, by: float) -> Tensor:
            return self.c(x) * by

    analysis = pr.analyze(Scaled(lambda net, x: x), example_inputs=(torch.zeros(1, 4, 8, 8), 2.0))
    assert not analysis.of("dead-positions")


def falls(weights: Tensor) -> tuple[float, float]:
    """Edge and corner of a signal relative to its middle."""
    n = len(weights)
    return float(weights[0, n // 2] / weights[n // 2, n // 2]), float(weights[0, 0] / weights[n // 2, n // 2])


def walks(x: Tensor, times: int, partial: bool) -> Tensor:
    """The signal behind 3x3 convolutions of random weights: the root of sums of squares over windows of real input."""
    ones = torch.ones(1, 1, 3, 3, dtype=x.dtype)
    real = F.conv2d(torch.ones_like(x), ones, padding=1)
    for _ in range(times):
        x = F.conv2d(x, ones, padding=1) / 9 * ((9 / real) ** 2 if partial else 1)
    return x.sqrt()


def test_zeros_are_told_of_where_they_reach_farthest() -> None:
    """Not of a head that pads nothing and is called last, nor of one that no output reads."""

    def forward(net: Net, x: Tensor) -> Any:
        main = net.d(net.c(net.d(net.c(x))))
        net.c(net.d(main))
        return main, F.conv2d(x, net.a.weight[:, :, :1, :1])

    analysis = analyse(forward, 16)
    (found,) = analysis.of("zero-border")
    assert found.numbers["most"] == "d@1"
    assert found.message.startswith("6 of 7 convolutions pad with zeros; 75% of the positions of d@1 depend on them")
    ones = torch.ones(1, 1, 16, 16, dtype=torch.float64)
    for names, partial in ((("edge", "corner"), False), (("partial_edge", "partial_corner"), True)):
        wanted = falls(walks(ones, 4, partial)[0, 0])
        assert [found.numbers[name] for name in names] == [round(number, 6) for number in wanted]
        assert f"{wanted[0]:.2f} and its corner {wanted[1]:.2f}" in found.message or partial
        assert f"{wanted[0]:.2f} and {wanted[1]:.2f} with partial padding" in found.message or not partial


def test_of_equally_affected_ones_the_weakest_corner_is_told() -> None:
    """Not the last one: a window of stride 2 behind the weakest reads its corner together with stronger neighbours."""
    model = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1) for _ in range(4)), nn.Conv2d(1, 1, 3, 3), nn.Conv2d(1, 1, 1))
    (found,) = pr.analyze(model, example_inputs=torch.zeros(1, 1, 6, 6)).of("zero-border")
    ones = torch.ones(1, 1, 6, 6, dtype=torch.float64)
    corners = {str(i): falls(walks(ones, i + 1, False)[0, 0])[1] for i in (2, 3)}  # those before have clean positions
    assert found.message.startswith("4 of 6 convolutions pad with zeros; 100% of the positions of 3 depend on them")
    assert (found.numbers["most"], found.numbers["share"]) == ("3", 1)
    assert found.numbers["corner"] == round(min(corners.values()), 6) == round(corners["3"], 6)


def is_even(model: nn.Module, x: Tensor) -> bool:
    """Whether all strided, padded windows along the height read as much padding after the map as before it."""
    uneven: list[nn.Module] = []

    def see(layer: Any, given: tuple[Tensor], result: Tensor) -> None:
        numbers = (layer.kernel_size, layer.stride, layer.padding)
        kernel, stride, pad = (v if isinstance(v, int) else v[0] for v in numbers)
        after = (result.shape[2] - 1) * stride - pad + kernel - given[0].shape[2]
        if stride > 1 and pad > 0 and after != pad:
            uneven.append(layer)

    hooks = [m.register_forward_hook(see) for m in model.modules() if isinstance(m, (nn.Conv2d, nn.MaxPool2d))]
    try:
        with torch.no_grad():
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return not uneven


def strided(*windows: tuple[int, int, int]) -> nn.Sequential:
    return nn.Sequential(*(nn.Conv2d(1, 1, kernel, stride, pad) for kernel, stride, pad in windows))


class Skipping(nn.Module):
    """Down by a window, up by a resize, and added: runs at even sizes only."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.down, self.more = nn.Conv2d(1, 1, 3, 2, 1), nn.Conv2d(1, 1, kernel, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.more(x + F.interpolate(F.max_pool2d(x, 2), scale_factor=2)) + self.more(x)


class Both(nn.Module):
    """Windows of which one is even at odd sizes, the other at even ones."""

    def __init__(self) -> None:
        super().__init__()
        self.odd, self.even = nn.Conv2d(1, 1, 3, 2, 1), nn.Conv2d(1, 1, 4, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.odd(x), self.even(x)


EVEN = {
    "one": (strided((3, 2, 1)), 24, True),
    "five": (nn.Sequential(*strided((7, 2, 3)), nn.MaxPool2d(3, 2, 1), *strided(*[(3, 2, 1)] * 3)), 64, True),
    "even kernels": (strided((4, 2, 1), (4, 2, 1)), 45, True),
    "by three": (strided((3, 3, 1), (5, 2, 2)), 40, True),
    "contradicting": (Both(), 40, False),
    "with a requirement": (Skipping(3), 32, True),
}


@pytest.mark.parametrize("name", EVEN)
def test_all_sizes_at_which_padding_is_even(name: str) -> None:
    model, size, some = EVEN[name]
    (found,) = pr.analyze(model, example_inputs=torch.zeros(1, 1, size, size)).of("uneven-padding")
    period, residues = found.numbers["period"], found.numbers["residues"]
    even: list[int] = []
    sizes = range(16, 16 + 3 * max(period, 24))
    for n in sizes:
        with contextlib.suppress(RuntimeError):
            even += [n] if is_even(model, torch.zeros(1, 1, n, 16)) else []
    assert even == [n for n in sizes if n % period in residues]
    assert bool(even) == some == bool(residues)
    assert not some or f"{', '.join(map(str, residues))} modulo {period}" in found.message
    near = [n for n in even if abs(n - size) <= period]
    assert [n for n in found.numbers["nearest"] if n in sizes] == [
        *[n for n in near if n < size][-1:],
        *[n for n in near if n > size][:1],
    ]


def moved(x: Tensor, rows: int, columns: int) -> Tensor:
    """As large as it was, and that many pixels up and to the left."""
    return F.pad(x, (0, columns, 0, rows))[..., rows:, columns:]


def test_shifts_are_told_along_the_axes_that_have_them() -> None:
    """Of outputs and of branches: once where all are alike, else with the dimension."""
    down, right = "along input dimension 2", "along input dimension 3"
    for rows, columns, output, merge in (
        (3, 3, "sits +3 px off the input's pixels", "that sit 3 input px apart"),
        (3, 0, f"sits +3 px off the input's pixels {down}", f"that sit 3 input px apart {down}"),
        (
            *(3, 1),
            f"sits +3 px off the input's pixels {down} and sits +1 px off the input's pixels {right}",
            f"that sit 3 input px apart {down} and that sit 1 input px apart {right}",
        ),
    ):
        (found,) = analyse(lambda net, x, by=(rows, columns): moved(net.c(x), *by)).of("shifted-output")
        assert found.message == f"output 0 {output}"
        assert found.numbers["dims"] == [2, 3][: 2 if columns else 1]
        (found,) = analyse(lambda net, x, by=(rows, columns): net.c(x) + moved(net.d(x), *by)).of("misaligned-merge")
        assert found.message == f"add joins branches {merge}"


def test_stretched_outputs_are_told_by_axis_and_name() -> None:
    def forward(net: Net, x: Tensor) -> Any:
        up = F.interpolate(net.a(x), x.shape[2:], mode="bilinear", align_corners=True)
        return {"none": None, "out": up, "aux": [net.c(x), moved(net.c(x), 1, 1)]}

    found = pr.analyze(Net(forward), example_inputs=torch.zeros(1, 4, 32, 33)).of("shifted-output")
    assert [f.message for f in found] == [
        "output out has 30/31 input px per pixel and covers 0 to 30 of the input along input dimension 2",
        "output aux[1] sits +1 px off the input's pixels",
    ]
    assert [f.numbers["output"] for f in found] == [0, 2]
    found = analyse(lambda net, x: (None, net.c(x), moved(net.c(x), 1, 1))).of("shifted-output")
    assert [f.message for f in found] == ["output 2 sits +1 px off the input's pixels"]


def test_one_axis_of_a_layer_is_told_by_the_dimension_of_what_it_reads() -> None:
    for shape, dim in (((1, 4, 16, 16), 3), ((4, 16, 16), 2)):
        (found,) = pr.analyze(nn.Conv2d(4, 4, (3, 2), padding=(1, 0)), example_inputs=torch.zeros(shape)).of(
            "half-pixel-shift"
        )
        assert found.message.startswith(f"every output sits +1/2 px off what it reads along dimension {dim};")
