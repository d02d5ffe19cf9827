"""Receptive fields against the extents of gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from strategies import NetSpec, nets
from torch import Tensor, nn

import padrewrite as pr
from analyses.oracles import (
    NOISE,
    flat_net,
    flatten_weights,
    reached_by_gradient,
    sensitivities,
    tensors_of,
    untouched,
    without_cancelling,
)
from padrewrite.analyses.fields import MOST_RESIDUES, AxisField, Fields
from padrewrite.analyses.layout import Layout, read_layout
from padrewrite.analyses.totals import totals
from padrewrite.fuzzing.networks import Pad

LOCAL = (
    *("conv", "pointwise", "batch_norm", "avg_pool", "add", "cat", "pad", "crop", "interpolate", "transposed_conv"),
    *("residual", "skip", "adaptive_pool", "pixel_shuffle", "downsample"),
)
"""Kinds without a path that reads everything."""


def fields_of(model: nn.Module, x: Tensor) -> tuple[Layout, Fields]:
    layout = read_layout(pr.record(model, example_inputs=x))
    return layout, Fields(layout)


def unwrapped(spec: NetSpec, grown: tuple[int, ...]) -> NetSpec:
    """Without wrapping round, which makes windows at one end reach the other; on a larger input if that runs."""
    layers = [
        replace(layer, mode="replicate") if getattr(layer, "mode", "") == "circular" else layer for layer in spec.layers
    ]
    steps = [replace(s, mode="replicate") if isinstance(s, Pad) and s.mode == "circular" else s for s in spec.steps]
    spec = without_cancelling(replace(spec, layers=tuple(layers), steps=tuple(steps)))
    for more in grown:
        larger = replace(spec, shape=(spec.shape[0], *(n + more for n in spec.shape[1:])))
        try:
            assert larger.shapes
        except ValueError:
            continue
        return larger
    return spec


def check_field(field: AxisField, reads: dict[int, set[int]], everywhere: list[set[int]]) -> bool:
    """``reads``: what each output reads that is touched by no border; False if not every residue is among them."""
    many = len(field.spans)
    for i, real in reads.items():
        span = field.spans[i % many]
        expected = None if span is None else (field.scale * i + span[0], field.scale * i + span[1])
        assert expected == ((min(real), max(real)) if real else None), (i, field)
    assert field.size >= max((max(real) - min(real) + 1 for real in everywhere if real), default=0)
    seen = {i % many for i in reads}
    if any(span is not None and residue not in seen for residue, span in enumerate(field.spans)):
        return False
    assert field.size == max((max(real) - min(real) + 1 for real in reads.values() if real), default=0)
    return True


def check_tensor(model: nn.Module, x: Tensor, which: int, fields: list[AxisField | None]) -> int:
    moved = sensitivities(lambda x: tensors_of(model, x), x, which).abs() > NOISE
    inside = untouched(lambda x: tensors_of(model, x), x, which)
    rank = inside.dim()
    compared = 0
    for a, field in enumerate(fields):
        along = moved[..., None].movedim(rank + a, -1).flatten(rank, -2).any(rank)  # (*positions, inputs)
        rows: dict[int, set[int]] = {}
        for index in inside.nonzero().tolist():
            if rank > 1 and not moved[tuple(index)].any():
                continue  # a gap along another axis says nothing about this one
            rows.setdefault(index[a], set()).update(along[tuple(index)].nonzero().flatten().tolist())
        everywhere = [set(row.nonzero().flatten().tolist()) for row in along.flatten(0, rank - 1)]
        compared += field is not None and check_field(field, rows, everywhere)
    return compared


def check_network(spec: NetSpec) -> int:
    model, x = flat_net(spec), replace(spec, batch=1).draw_input()
    layout, fields = fields_of(model, x)
    nodes = [*layout.sites.values(), *layout.outputs]
    return sum(
        check_tensor(model, x, which, [fields.of(node, d) for d in range(2, x.dim())])
        for which, node in enumerate(nodes)
    )


@settings(max_examples=max(25, settings.default.max_examples))
@given(nets(ranks=(1,), kinds=LOCAL, linear_only=True, parts=(1, 6)))
def test_random_networks(spec: NetSpec) -> None:
    check_network(unwrapped(spec, (60, 40)))


@settings(max_examples=max(5, settings.default.max_examples // 6))
@given(nets(ranks=(2,), kinds=LOCAL, linear_only=True, parts=(1, 3)))
def test_random_images(spec: NetSpec) -> None:
    check_network(unwrapped(spec, (12,)))


def op(forward: Any) -> nn.Module:
    class Op(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return forward(x)

    return Op()


def ones(kernel: int) -> Tensor:
    return torch.ones(1, 1, kernel, dtype=torch.float64)


def hourglass(x: Tensor) -> Tensor:
    low = F.conv1d(F.conv1d(x, ones(3), None, 2, 1), ones(3), None, 2, 1)
    return x + F.conv_transpose1d(F.conv_transpose1d(low, ones(4), None, 2, 1), ones(4), None, 2, 1)


FIELDS = {
    "dilated chain": (lambda x: F.conv1d(F.conv1d(x, ones(3), dilation=2), ones(3), dilation=5), 15),
    "strided chain": (lambda x: F.conv1d(F.conv1d(x, ones(3), stride=2), ones(3), stride=3), 7),
    "nearest": (lambda x: F.conv1d(F.interpolate(x, scale_factor=2), ones(3)), 2),
    "linear": (lambda x: F.conv1d(F.interpolate(x, scale_factor=2.0, mode="linear"), ones(3)), 3),
    "gaps": (lambda x: F.conv_transpose1d(x, ones(2), stride=3), 1),
    "hourglass": (hourglass, 15),
    "a long way down": (lambda x: F.avg_pool1d(F.max_pool1d(F.conv1d(x, ones(7), None, 2, 3), 3, 2, 1), 7, 1), 35),
}


@pytest.mark.parametrize("name", FIELDS)
def test_by_hand(name: str) -> None:
    forward, size = FIELDS[name]
    layout, fields = fields_of(op(forward), torch.rand(1, 1, 64, dtype=torch.float64))
    field = fields.of(layout.outputs[0], 2)
    assert field is not None
    assert field.size == size
    if name != "a long way down":
        assert check_tensor(op(forward), torch.rand(1, 1, 64, dtype=torch.float64), -1, [field])


def test_neighbours_behind_a_resize_see_unequally_far() -> None:
    forward = FIELDS["nearest"][0]
    layout, fields = fields_of(op(forward), torch.rand(1, 1, 64, dtype=torch.float64))
    field = fields.of(layout.outputs[0], 2)
    # Outputs 2i read pixels i, i and i+1, outputs 2i+1 pixels i, i+1 and i+1.
    half = Fraction(1, 2)
    assert field == AxisField(half, ((Fraction(0), Fraction(1)), (-half, half)))


def test_context_is_left_out() -> None:
    def gated(x: Tensor) -> Tensor:
        x = F.conv1d(x, ones(3), padding=1)
        return F.instance_norm(x) * x.mean(-1, keepdim=True)

    layout, fields = fields_of(op(gated), torch.rand(1, 1, 64, dtype=torch.float64))
    field = fields.of(layout.outputs[0], 2)
    assert field is not None
    assert field.size == 3


def test_what_differs_from_place_to_place_has_no_field() -> None:
    x = torch.rand(1, 1, 64, dtype=torch.float64)
    for forward in (
        lambda x: F.conv1d(x, ones(3)).roll(1, -1),
        lambda x: F.interpolate(F.conv1d(x, ones(3)), 1, mode="linear", align_corners=True),
        lambda x: F.conv1d(x, ones(3), None, 2, 1) + F.interpolate(x, 32, mode="linear", align_corners=True),
        lambda x: F.interpolate(x, 2 * MOST_RESIDUES + 1, mode="linear"),
    ):
        layout, fields = fields_of(op(forward), x)
        assert fields.of(layout.outputs[0], 2) is None


def test_images_axis_by_axis() -> None:
    model = flatten_weights(nn.Sequential(nn.Conv2d(1, 2, (3, 5), (1, 2)), nn.Conv2d(2, 1, (3, 2), dilation=(2, 1))))
    layout, fields = fields_of(model, torch.rand(1, 1, 24, 24, dtype=torch.float64))
    found = [fields.of(layout.outputs[0], d) for d in (2, 3)]
    assert [f.size for f in found if f is not None] == [7, 7]
    assert [f.scale for f in found if f is not None] == [1, 2]


class Skipped(nn.Module):
    """A branch of half the size, resized and added; ``through`` is what the last convolution reads."""

    def __init__(self, through: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.deep, self.last = (nn.Conv2d(1, 1, 3, padding=1) for _ in range(3))
        self.through = through

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.last(self.through(y, self.deep(F.avg_pool2d(y, 2))))


UNKNOWN: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], str]] = {
    "corners aligned": (
        lambda y, z: y + F.interpolate(z, scale_factor=2, mode="bilinear", align_corners=True),
        "add joins branches of different scales",
    ),
    "many residues": (
        lambda y, z: F.interpolate(z, size=(1021, 1021), mode="bilinear"),
        "windows of interpolate differ from place to place",
    ),
    "a warp": (
        lambda y, z: F.grid_sample(y, F.affine_grid(torch.eye(2, 3)[None], [1, 1, 16, 16], align_corners=False)),
        "grid_sample is not a call whose positions are known",
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_without_a_field_there_is_a_reason_and_the_largest_is_a_lower_bound(name: str) -> None:
    torch.manual_seed(0)
    through, reason = UNKNOWN[name]
    model, x = Skipped(through), torch.randn(1, 1, 16, 16)
    found = pr.analyze(model, example_inputs=x)
    site, whole = found.sites["last"], totals(found)
    assert (site.field_ended is None) == bool(found.of("reasoning-ended"))
    assert (site.receptive_field, site.field_ended or site.ended) == ((None, None), reason)
    assert whole.receptive_field == (8, 8)
    assert not whole.receptive_field_complete
    assert ">= 8x8" in str(found)
    if name == "corners aligned":
        (moved,) = reached_by_gradient(model, [x], "last")
        assert {max(line) - min(line) + 1 for line in zip(*moved)} == {12}  # really more


def test_with_all_fields_known_the_largest_is_the_largest() -> None:
    torch.manual_seed(0)
    model, x = Skipped(lambda y, z: z), torch.randn(1, 1, 32, 32)
    found = pr.analyze(model, example_inputs=x)
    (moved,) = reached_by_gradient(model, [x], "last")
    assert {max(line) - min(line) + 1 for line in zip(*moved)} == {12} == set(totals(found).receptive_field or ())
    assert totals(found).receptive_field_complete
    assert ">=" not in str(found).splitlines()[2]
