"""Fields are held against gradients, shifts against sums by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import padrewrite as pr
from padrewrite.drawing import receptive_field_figure, shift_figure
from padrewrite.errors import PadrewriteError

pytest.importorskip("matplotlib")


class Branches(nn.Module):
    """Two dilated branches of different shape, added: a union of products."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 1, 3, stride=2, padding=1)
        self.wide = nn.Conv2d(1, 1, (1, 3), padding=(0, 4), dilation=(1, 4))
        self.tall = nn.Conv2d(1, 1, (3, 1), padding=(2, 0), dilation=(2, 1))
        self.last = nn.Conv2d(1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        return self.last(self.wide(y) + self.tall(y))


def gradients(model: nn.Module, x: Tensor) -> Tensor:
    """Which pixels the middle output depends on: with weights of one no two paths cancel."""
    ones = {name: torch.ones_like(p, dtype=torch.float64) for name, p in model.named_parameters()}
    x = x.double().requires_grad_()
    out = torch.func.functional_call(model, ones, (x,))
    middle = out[(0, 0, *(n // 2 for n in out.shape[2:]))]
    (found,) = torch.autograd.grad(middle, x)
    return found[0, 0] != 0


def test_field_is_what_has_a_gradient() -> None:
    model, x = Branches(), torch.ones(1, 1, 21, 30)
    figure: Any = receptive_field_figure(pr.analyze(model, example_inputs=x), ["stem", "last"])
    for axis, part in zip(figure.axes, (model.stem, model)):
        wanted = gradients(part, x)
        shown = axis.images[0].get_array().filled(float("nan"))
        assert torch.equal(torch.from_numpy(shown) == 1, wanted)
        (frame,) = axis.patches
        rows, columns = (torch.nonzero(wanted.any(d)).flatten() for d in (1, 0))
        assert (frame.get_x(), frame.get_y()) == (columns.min() - 0.5, rows.min() - 0.5)
        assert (frame.get_width(), frame.get_height()) == (
            len(range(columns.min(), columns.max() + 1)),
            len(range(rows.min(), rows.max() + 1)),
        )
    assert figure.axes[1].get_title().startswith("last\n45 pixels in 11x19")


def test_field_along_one_axis() -> None:
    model, x = nn.Sequential(nn.Conv1d(1, 1, 3, dilation=2, padding=2)), torch.ones(1, 1, 9)
    figure: Any = receptive_field_figure(pr.analyze(model, example_inputs=x), ["0"])
    (shown,) = figure.axes[0].images[0].get_array().filled(0.0).tolist()
    assert shown == [0, 0, 1, 0, 1, 0, 1, 0, 0]


def test_shift_adds_up() -> None:
    """Half a pixel of its own grid for each 2x2, and half a pixel for each halving."""
    layers: list[nn.Module] = []
    for stage in range(3):
        layers += [nn.AvgPool2d(2)] if stage else []
        layers += [nn.Conv2d(2, 2, 2, padding="same"), nn.Conv2d(2, 2, 2, padding="same")]
    analysis = pr.analyze(nn.Sequential(*layers), example_inputs=torch.ones(1, 2, 32, 32))
    odd = pr.analyze(nn.Sequential(nn.Conv2d(2, 2, 3, padding=1)), example_inputs=torch.ones(1, 2, 32, 32))
    axis: Any = shift_figure({"even": analysis, "odd": odd}).axes[0]
    drawn = {line.get_label(): [float(y) for y in line.get_ydata()] for line in axis.lines}
    assert drawn["even"] == [0.5, 1, 2.5, 3.5, 6.5, 8.5]
    assert drawn["odd"] == [0]
    assert drawn["unshifted (grey)"] == [0, 0, 0.5, 0.5, 1.5, 1.5]


@pytest.mark.parametrize(
    ("model", "x", "sites", "message"),
    [
        (nn.Sequential(nn.Conv2d(1, 1, 3)), torch.ones(1, 1, 5, 5), [], "got no site"),
        (nn.Sequential(nn.Conv2d(1, 1, 3)), torch.ones(1, 1, 5, 5), ["one"], "there is no site 'one'; .* has 0"),
        (nn.Sequential(nn.Conv2d(1, 1, 3)), None, ["0"], "what reaches 0 is not known: no example inputs"),
        (nn.Sequential(nn.Conv3d(1, 1, 3)), torch.ones(1, 1, 5, 5, 5), ["0"], "0 has 3 spatial axes"),
    ],
)
def test_fields_that_cannot_be_drawn(model: nn.Module, x: Tensor | None, sites: list[str], message: str) -> None:
    with pytest.raises(PadrewriteError, match=message):
        receptive_field_figure(pr.analyze(model, example_inputs=x), sites)


def test_shifts_that_cannot_be_drawn() -> None:
    with pytest.raises(PadrewriteError, match="got no analysis"):
        shift_figure({})
    with pytest.raises(PadrewriteError, match="no convolution of 'net' has a known phase"):
        shift_figure({"net": pr.analyze(nn.Sequential(nn.Conv2d(1, 1, 3)))})


def test_one_analysis_needs_no_label() -> None:
    analysis = pr.analyze(nn.Sequential(nn.Conv2d(1, 1, 3)), example_inputs=torch.zeros(1, 1, 9, 9))
    axis: Any = shift_figure(analysis).axes[0]
    labelled: Any = shift_figure({"Sequential": analysis}).axes[0]
    for shown, wanted in zip(axis.lines, labelled.lines, strict=True):
        assert shown.get_label() == wanted.get_label()
        assert list(shown.get_ydata()) == list(wanted.get_ydata())
