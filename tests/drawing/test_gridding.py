"""The gridding figure shows what a stack of convolutions reads, found by differentiating one."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from math import isnan
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import conv2d

import padrewrite as pr
from padrewrite.analyses.chains import Gridding
from padrewrite.drawing import gridding_figure
from padrewrite.errors import PadrewriteError
from padrewrite.formulas import path_counts

pytest.importorskip("matplotlib")
LAYERS = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4)), min_size=1, max_size=4)


def paths(rates: Sequence[int], kernels: Sequence[int]) -> torch.Tensor:
    """With weights of one, the gradient of a single output is the number of paths to each input pixel."""
    field = 1 + sum(r * (k - 1) for r, k in zip(rates, kernels))
    x = torch.ones(1, 1, field, field, dtype=torch.float64, requires_grad=True)
    out = x
    for rate, kernel in zip(rates, kernels):
        out = conv2d(out, torch.ones(1, 1, kernel, kernel, dtype=torch.float64), dilation=rate)
    (gradient,) = torch.autograd.grad(out, x)
    return gradient[0, 0]


def maps(figure: Any) -> list[torch.Tensor]:
    """What the panels show; holes as 0."""
    shown = [axis.images[0].get_array().filled(float("nan")) for axis in figure.axes if axis.images]
    return [torch.from_numpy(values).nan_to_num(0) for values in shown]


@given(LAYERS)
def test_counts_of_paths_are_gradients(layers: list[tuple[int, int]]) -> None:
    rates, kernels = [r for r, _ in layers], [k for _, k in layers]
    counts = torch.tensor(path_counts(rates, kernels), dtype=torch.float64)
    assert torch.equal(torch.outer(counts, counts), paths(rates, kernels))


def test_panels_show_the_paths_of_their_chains() -> None:
    """The paper's two chains, and one of mixed kernels."""
    figure = gridding_figure({"a": (2, 2, 2), "b": (1, 2, 3), "c": Gridding.of((1, 2), (2, 5))})
    wanted = [paths((2, 2, 2), (3, 3, 3)), paths((1, 2, 3), (3, 3, 3)), paths((1, 2), (2, 5))]
    for shown, counts in zip(maps(figure), wanted, strict=True):
        torch.testing.assert_close(shown, counts / counts.max(), rtol=1e-12, atol=0)


def test_what_nothing_reads_is_empty() -> None:
    """49 of 169 pixels with rates 2, 2, 2; all of them with 1, 2, 3."""
    figure: Any = gridding_figure({"before": (2, 2, 2), "after": (1, 2, 3)})
    empty = [
        sum(isnan(v) for row in axis.images[0].get_array().filled(float("nan")) for v in row)
        for axis in figure.axes[:2]
    ]
    assert empty == [120, 0]
    assert "49 of 13x13 pixels read, gridding score 1.00" in figure.axes[0].get_title()
    assert "169 of 13x13 pixels read, gridding score 0.11" in figure.axes[1].get_title()
    assert [bar.get_height() for bar in figure.axes[2].patches[::2]] == [1 / 7, 3 / 7, 6 / 7, 1, 6 / 7, 3 / 7, 1 / 7]
    assert [bar.get_height() for bar in figure.axes[2].patches[1::2]] == [0] * 6


def test_chain_of_a_model() -> None:
    layers = [torch.nn.Conv2d(2, 2, 3, padding=r, dilation=r) for r in (2, 4)]
    (chain,) = pr.analyze(torch.nn.Sequential(*layers), example_inputs=torch.ones(1, 2, 32, 32)).chains
    counts = paths((2, 4), (3, 3))
    torch.testing.assert_close(maps(gridding_figure({"chain": chain}))[0], counts / counts.max(), rtol=1e-12, atol=0)


def test_same_chains_same_bytes() -> None:
    def png() -> bytes:
        stream = io.BytesIO()
        gridding_figure({"long": [2] * 23 + [4] * 3}).savefig(stream, format="png")
        return stream.getvalue()

    assert png() == png()


def test_nothing_to_draw() -> None:
    with pytest.raises(PadrewriteError, match="got no chain; give rates"):
        gridding_figure({})


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(PadrewriteError, match=r"Run: pip install 'padrewrite\[figures\]'"):
        gridding_figure({"chain": (1, 2)})


def test_chains_without_titles() -> None:
    """Those of an analysis, rates alone, and several of them."""
    net = torch.nn.Sequential(*(torch.nn.Conv2d(1, 1, 3, padding=r, dilation=r) for r in (2, 2, 3)))
    analysis = pr.analyze(net, example_inputs=torch.zeros(1, 1, 32, 32))
    untitled: list[tuple[Any, dict[str, Any]]] = [
        (analysis.chains, {"0 to 2": (2, 2, 3)}),
        (analysis.chains[0], {"0 to 2": (2, 2, 3)}),
        ((1, 2, 3), {"1, 2, 3": (1, 2, 3)}),
        (Gridding.of((1, 2), (2, 5)), {"1, 2": Gridding.of((1, 2), (2, 5))}),
        ([(1, 2), (1, 2), (1, 3)], {"1, 2": (1, 2), "1, 2 (2)": (1, 2), "1, 3": (1, 3)}),
    ]
    for given_chains, titled in untitled:
        shown, wanted = gridding_figure(given_chains), gridding_figure(titled)
        assert [axis.get_title() for axis in shown.axes] == [axis.get_title() for axis in wanted.axes]
        assert all(map(torch.equal, maps(shown), maps(wanted)))
