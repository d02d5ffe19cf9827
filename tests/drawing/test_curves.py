"""The curves pass through counted windows and through the papers' figures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import conv2d

from padrewrite.drawing import erosion_figure, valid_weights_figure

pytest.importorskip("matplotlib")
RATES = (1, 6, 12, 18, 24, 32, 48, 64, 65, 90)


def curves(figure: Any) -> dict[str, list[float]]:
    lines = [line for line in figure.axes[0].lines if not line.get_label().startswith("_")]
    return {line.get_label(): [float(y) for y in line.get_ydata()] for line in lines}


def test_valid_weights_are_those_of_a_convolution_of_ones() -> None:
    """On the paper's map of 65 pixels, and for rates at which the kernel outgrows it."""
    drawn = curves(valid_weights_figure(65, 3, RATES))
    assert list(drawn) == ["9 weights", "6 weights", "4 weights", "2 weights", "1 weight", "share of all weights"]
    ones = torch.ones(1, 1, 65, 65, dtype=torch.float64)
    for i, rate in enumerate(RATES):
        counts = conv2d(ones, torch.ones(1, 1, 3, 3, dtype=torch.float64), padding=rate, dilation=rate).flatten()
        for weights in (9, 6, 4, 2, 1):
            share = float((counts == weights).double().mean())
            height = drawn[f"{weights} weight{'s' if weights > 1 else ''}"][i]
            assert (height == pytest.approx(share, rel=1e-12)) if share else height != height
        assert drawn["share of all weights"][i] == pytest.approx(float(counts.mean()) / 9, rel=1e-12)


def test_share_of_weights_in_figures() -> None:
    shown = [f"{y:.3f}" for y in curves(valid_weights_figure(rates=RATES[:8]))["share of all weights"]]
    assert shown == ["0.980", "0.881", "0.769", "0.665", "0.568", "0.451", "0.258", "0.118"]


def test_other_kernels_and_maps() -> None:
    """A 5x5 kernel of rate 2 on 9 pixels: by hand, 3, 4 or 5 taps per axis."""
    ones = torch.ones(1, 1, 9, 9)
    counts = conv2d(ones, torch.ones(1, 1, 5, 5), padding=4, dilation=2).flatten().tolist()
    drawn = curves(valid_weights_figure(9, 5, [2]))
    assert {k: round(81 * y[0]) for k, y in drawn.items() if "weight" in k and "share" not in k} == {
        f"{int(n)} weights": counts.count(n) for n in sorted(set(counts), reverse=True)
    }


def test_erosion_ends_where_the_paper_does() -> None:
    """ResNet-56's layout: C2sp .395 > C3 .306 > C4sp .106 >> C4 .006, C2 1.5e-5."""
    drawn = curves(erosion_figure())
    ends = {label: float(f"{left[-1]:.2g}") for label, left in drawn.items()}
    assert ends == {"3x3": 0.31, "2x2 symmetric": 0.4, "2x2": 1.5e-05, "4x4 symmetric": 0.11, "4x4": 0.0063}
    assert {len(left) for left in drawn.values()} == {55}


def test_erosion_of_one_layer_by_hand() -> None:
    """A 3x3 layer on 3x3 pixels: second moments 4/9, 6/9 and 1, so Q is the mean of their roots."""
    (left,) = curves(erosion_figure(1, 3, (), {"3x3": (3, False)})).values()
    assert left == [pytest.approx((4 * (4 / 9) ** 0.5 + 4 * (6 / 9) ** 0.5 + 1) / 9, rel=1e-12)]
