"""Space to depth by slices is what ``nn.PixelUnshuffle`` is; other concatenations of slices are misaligned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import padrewrite as pr

Cut = Callable[[Tensor], Tensor]


class Stem(nn.Module):
    """A tensor of three channels, rearranged, and a convolution."""

    def __init__(self, arrange: Cut, first: nn.Module | None = None) -> None:
        super().__init__()
        self.arrange, self.first = arrange, first or nn.Identity()
        channels = arrange(torch.zeros(1, 3, 24, 24)).shape[1]
        self.conv = nn.Conv2d(channels, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.arrange(self.first(x)))


def slices(places: Sequence[tuple[int, int]], rows: int, columns: int) -> Cut:
    return lambda x: torch.cat([x[..., i::rows, j::columns] for i, j in places], 1)


def every(rows: int, columns: int) -> list[tuple[int, int]]:
    return [(i, j) for j in range(columns) for i in range(rows)]


def last(x: Tensor) -> Tensor:
    """Channels last, one axis after the other, as in the merging of patches of Swin."""
    x = x.permute(0, 2, 3, 1)
    parts = [x[:, i::2][:, :, j::2] for i, j in every(2, 2)]
    return torch.cat(parts, -1).permute(0, 3, 1, 2)


COMPLETE: dict[str, tuple[Cut, Cut]] = {
    "focus": (slices(every(2, 2), 2, 2), nn.PixelUnshuffle(2)),
    "by four": (slices(every(4, 4), 4, 4), nn.PixelUnshuffle(4)),
    "channels last": (last, nn.PixelUnshuffle(2)),
    "of a crop": (
        lambda x: slices(every(2, 2), 2, 2)(x[..., 1:-1, 1:-1]),
        lambda x: nn.PixelUnshuffle(2)(x[..., 1:-1, 1:-1]),
    ),
    "with ends": (
        lambda x: torch.cat([x[..., i : 12 + i : 2, j : 12 + j : 2] for i, j in every(2, 2)], 1),
        lambda x: nn.PixelUnshuffle(2)(x[..., :12, :12]),
    ),
}


@pytest.mark.parametrize("first", [None, nn.Conv2d(3, 3, 4, 2, 1)])
@pytest.mark.parametrize("name", COMPLETE)
def test_it_is_an_unshuffle(name: str, first: nn.Module | None) -> None:
    """The same numbers in another order, and the same positions for all that follows."""
    by_slices, by_torch = COMPLETE[name]
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(by_slices(x).sort(1).values, by_torch(x).sort(1).values)
    given = torch.rand(1, 3, 32, 32)
    ours, wanted = (pr.analyze(Stem(arrange, first), example_inputs=given) for arrange in COMPLETE[name])
    assert not ours.of("misaligned-merge")
    assert [(p and (p.scale, p.offset)) for p in ours.sites["conv"].phase] == [
        (p and (p.scale, p.offset)) for p in wanted.sites["conv"].phase
    ]
    assert None not in ours.sites["conv"].phase


INCOMPLETE: dict[str, Cut] = {
    "one is missing": slices(every(2, 2)[:3], 2, 2),
    "one twice": slices([*every(2, 2)[:3], (0, 0)], 2, 2),
    "the diagonal": slices([(0, 0), (1, 1)], 2, 2),
    "too far apart": lambda x: torch.cat([x[..., 0:14:2, :], x[..., 2:16:2, :]], 1),
    "other channels": lambda x: torch.cat([x[:, :1, ::2], x[:, 1:2, 1::2]], 1),
    "of two tensors": lambda x: torch.cat([x[..., ::2, :], (x + 1)[..., 1::2, :]], 1),
    "added": lambda x: x[..., ::2, :] + x[..., 1::2, :],
}


@pytest.mark.parametrize("name", INCOMPLETE)
def test_anything_else_is_misaligned(name: str) -> None:
    found: Any = pr.analyze(Stem(INCOMPLETE[name]), example_inputs=torch.rand(1, 3, 32, 32)).of("misaligned-merge")
    assert len(found) == 1


def test_a_strip_is_cut_along_one_axis() -> None:
    analysis = pr.analyze(Stem(slices(every(3, 1), 3, 1)), example_inputs=torch.rand(1, 3, 30, 30))
    assert not analysis.of("misaligned-merge")
    assert [(p.scale, p.offset) for p in analysis.sites["conv"].phase if p] == [(3, 1), (1, 0)]
