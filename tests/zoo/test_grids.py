"""The table of output stride on real extractors: what a row says, and that a wrong network is a failed row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import padrewrite as pr

from . import grids
from .extractors import EXTRACTORS, Extractor
from .grids import ALLOWED, GridRow, distance, measure, page
from .sweeping.cache import ROOT

SIZES = ((40, 45), (33, 64), (47, 41))


class Gated(nn.Module):
    """A gate from the mean of the map: positions elsewhere count."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean((2, 3), keepdim=True).sigmoid()


def stages(*between: nn.Module) -> nn.Sequential:
    """Of output stride 32."""
    torch.manual_seed(3)
    layers = [nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1), nn.BatchNorm2d(3), nn.ReLU()) for _ in range(4)]
    return nn.Sequential(*layers, nn.MaxPool2d(3, 2, 1), *between, nn.Conv2d(3, 3, 3, padding=1)).eval()


def made(build: Callable[[], nn.Module]) -> Extractor:
    return Extractor("made", "ours", build, SIZES)


def test_rows_of_a_network() -> None:
    to_16, to_8 = measure(made(stages))
    assert (to_16.convs, to_16.pools, to_16.compared, to_16.reached) == (1, 1, 2, True)
    assert (to_8.convs, to_8.pools, to_8.compared, to_8.reached) == (2, 1, 3, True)
    assert all(row.ok and row.worst is not None and row.worst <= ALLOWED for row in (to_16, to_8))


def test_where_the_grid_ends() -> None:
    to_16, _ = measure(made(lambda: stages(Gated())))
    assert (to_16.convs, to_16.pools, to_16.compared, to_16.reached) == (1, 1, 0, False)
    assert to_16.worst is None
    assert to_16.ended == ("mean in 5, which reads all positions",)


def test_a_refusal_has_its_reason() -> None:
    rows = measure(made(lambda: stages(nn.Upsample(scale_factor=2))))
    assert {(row.code, row.ok) for row in rows} == {("fixed-upsampling", True)}
    assert all("cannot work on the finer grid" in row.reason for row in rows)


def broken() -> nn.Module:
    raise RuntimeError("the package is missing")


def silent() -> nn.Module:
    model: Any = stages()
    nn.init.zeros_(model[-1].weight)
    return model


@pytest.mark.parametrize(("build", "why"), [(broken, "the package is missing"), (silent, "no signal")])
def test_what_cannot_be_measured_has_failed(build: Callable[[], nn.Module], why: str) -> None:
    rows = measure(made(build))
    assert [row.stride for row in rows] == [16, 8]
    assert all(why in row.failure and not row.ok for row in rows)


@pytest.mark.parametrize("rate", [1, 3])
def test_a_wrong_rate_fails(rate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    right = pr.apply

    def wrong(model: nn.Module, plan: pr.Plan) -> nn.Module:
        new: Any = right(model, plan)
        new[-1].dilation = new[-1].padding = (rate, rate)
        return new

    monkeypatch.setattr(grids.pr, "apply", wrong)
    rows = measure(made(stages))
    assert not any(row.ok for row in rows)


def test_distance() -> None:
    old = torch.arange(6.0).reshape(1, 1, 2, 3)
    new = torch.full((1, 1, 3, 6), 9.0)
    new[..., ::2, ::2] = old
    assert distance(old, new, (2, 2)) == 0
    new[..., 2, 4] += 1
    assert distance(old, new, (2, 2)) == 1
    assert distance(old, new, (2, 1)) == float("inf")


def test_page() -> None:
    one, two = EXTRACTORS[:2]
    rows = [
        GridRow(one.name, 16, 3, 1, 4, 2e-14, reached=True),
        GridRow(one.name, 8, 6, 2, 8, 0.0, ended=("mean in se, which reads all positions",)),
        GridRow(two.name, 16, code="already-fine", reason="its coarsest map has stride 8"),
        GridRow(two.name, 8, failure="RuntimeError: no"),
    ]
    text = page(rows)
    assert f"| {one.name} | {one.family} | 64x96, 65x97, 83x70 | 3 + 1 (4): 1e-13 | 6 + 2 (8): 0, ends |" in text
    assert f"| {two.name} | {two.family} | 64x96, 65x97, 83x70 | `already-fine` | failed |" in text
    assert f"| `already-fine` | its coarsest map has stride 8 | {two.name} |" in text
    assert f"| mean in se, which reads all positions | {one.name} |" in text
    assert "* 2 rewritten, to their end 1; largest error 1e-13\n" in text
    assert "* 1 already as fine, 0 refused, 1 failed\n" in text


def test_the_page_is_about_all_extractors() -> None:
    """And what it reports has been run without a failure."""
    text = (ROOT / "docs" / "output-stride.md").read_text(encoding="utf-8")
    table = text.split("| network |")[1].split("\n\n")[0].splitlines()[2:]
    assert [line.split(" | ")[0].removeprefix("| ") for line in table] == [one.name for one in EXTRACTORS]
    assert "| failed |" not in text


def test_families() -> None:
    families = {one.family for one in EXTRACTORS}
    assert families >= {"resnet", "resnext", "densenet", "vgg", "mobilenetv2", "xception", "drn", "dla"}
    names = [one.name for one in EXTRACTORS]
    assert len(names) == len(set(names)) >= 40
    assert {"resnet50", "bn_vgg16", "resnet10"} <= set(names)
    assert all(len(one.sizes) == 3 for one in EXTRACTORS)


@pytest.mark.slow
@pytest.mark.zoo
def test_a_real_extractor() -> None:
    """DLA: pools of 2 beside convolutions of 3, which are padded at their ends."""
    pytest.importorskip("pytorchcv")
    rows = measure(next(one for one in EXTRACTORS if one.name == "dla46c"))
    assert [(row.convs, row.pools, row.reached, row.ok) for row in rows] == [(2, 1, True, True), (6, 2, True, True)]
