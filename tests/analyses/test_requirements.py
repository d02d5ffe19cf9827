"""Sizes that heads and parameters fix, against running the model at every size near."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import padrewrite as pr
from padrewrite.analyses.analysis import Finding


def stem(*head: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1), *head)


class Viewed(nn.Module):
    """Behind ``view(-1, number)`` other sizes become other batches, some of which run."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = stem(), nn.Linear(4 * 8 * 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x).view(-1, 4 * 8 * 8))


class Inferred(nn.Module):
    """A fixed pool leaves one position, which is flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.pool, self.head = stem(), nn.AvgPool2d(8, 1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pool(self.stem(x))
        return self.head(F.relu(pooled.view(pooled.size(0), -1)))


class Tokens(nn.Module):
    """A vision transformer's patches with a class token and positions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.token = nn.Conv2d(3, 8, 4, 4, 1), nn.Parameter(torch.randn(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 65, 8))

    def forward(self, x: Tensor) -> Tensor:
        patches = self.stem(x).flatten(2).transpose(1, 2)
        return torch.cat([self.token.expand(len(x), -1, -1), patches], 1) + self.positions


class Signal(nn.Module):
    """A layer over time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.mix = nn.Conv1d(2, 4, 5, 3, 2), nn.Linear(11, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(self.conv(x))


class Free(nn.Module):
    """Channels are fixed, positions are not."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.scale, self.head = stem(), nn.Parameter(torch.ones(4, 1, 1)), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.stem(x) * self.scale).flatten(2).transpose(1, 2))


class Pooled(nn.Module):
    """A pool that leaves one position, and no head behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.pool = stem(), nn.AvgPool2d(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.stem(x)).flatten(1)


SIDE = (3, 32, 32)
FIXED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "flatten": (lambda: stem(nn.Flatten(), nn.Linear(4 * 8 * 8, 10)), SIDE),
    "dropout": (lambda: stem(nn.Flatten(), nn.Dropout(), nn.Linear(4 * 8 * 8, 10)), SIDE),
    "batch norm": (lambda: stem(nn.Flatten(), nn.BatchNorm1d(4 * 8 * 8)).eval(), SIDE),
    "oblong": (lambda: stem(nn.Flatten(), nn.Linear(4 * 8 * 6, 10)), (3, 32, 22)),
    "layer norm": (lambda: stem(nn.LayerNorm([4, 8, 8])), SIDE),
    "fixed pool": (Inferred, SIDE),
    "view": (Viewed, SIDE),
    "tokens": (Tokens, SIDE),
    "signal": (Signal, (2, 31)),
    "stride 1": (lambda: nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2 * 30 * 30, 2)), SIDE),
}


def same_samples(model: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether the model runs on two samples of this shape, and gives two."""
    try:
        return len(model(torch.zeros(2, *shape))) == 2
    except RuntimeError:
        return False


def requirements(model: nn.Module, shape: tuple[int, ...]) -> tuple[Finding, ...]:
    return pr.analyze(model, example_inputs=torch.randn(2, *shape)).of("size-requirement")


@pytest.mark.parametrize("name", FIXED)
def test_heads_are_requirements(name: str) -> None:
    """Along each dimension by itself, the sizes that are named are those at which the model runs."""
    make, shape = FIXED[name]
    model = make()
    found = requirements(model, shape)
    told = {dim: finding.numbers["sizes"] for finding in found for _, dim in finding.numbers["inputs"]}
    assert sorted(told) == list(range(2, len(shape) + 1))
    for dim, sizes in told.items():
        others = [(*shape[: dim - 1], n, *shape[dim:]) for n in range(8, 80)]
        assert sizes == [other[dim - 1] for other in others if same_samples(model, other)]


@pytest.mark.parametrize("make", [Free, Pooled])
def test_what_is_fixed_by_nothing(make: Callable[[], nn.Module]) -> None:
    assert requirements(make(), SIDE) == ()


def test_the_message() -> None:
    (finding,) = requirements(FIXED["flatten"][0](), SIDE)
    assert finding.message == (
        "the size along input dimensions 2 and 3 needs to be 29 to 32, "
        "for 4#linear.0 to read the size that it is made for"
    )


@pytest.mark.parametrize("name", [name for name in FIXED if name != "stride 1"])
def test_sizes_that_are_recommended_run(name: str) -> None:
    """The nearest even sizes run; no residue is named, as no size far away runs."""
    make, shape = FIXED[name]
    model = make()
    analysis = pr.analyze(model, example_inputs=torch.randn(2, *shape))
    for finding in analysis.of("uneven-padding"):
        assert finding.numbers["residues"] is None
        dims = [dim - 1 for _, dim in finding.numbers["inputs"]]
        for size in finding.numbers["nearest"]:
            assert same_samples(model, tuple(size if d in dims else n for d, n in enumerate(shape)))
            assert size < 37


class Contradicting(nn.Module):
    """Kernel 3 pads evenly at odd sizes, kernel 4 at even ones."""

    def __init__(self) -> None:
        super().__init__()
        self.odd, self.even = nn.Conv2d(3, 2, 3, 2, 1), nn.Conv2d(3, 2, 4, 2, 1)
        self.head = nn.Linear(2 * 16 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.odd(x) + self.even(x)).flatten(1))


def test_no_size_that_runs_is_even() -> None:
    (finding,) = pr.analyze(Contradicting(), example_inputs=torch.randn(1, *SIDE)).of("uneven-padding")
    assert finding.message.endswith("; no size at which the model runs avoids it")
    (needed,) = requirements(Contradicting(), SIDE)
    assert needed.numbers["sizes"] == [n for n in range(8, 80) if same_samples(Contradicting(), (3, n, n))]


class Unfollowed(nn.Module):
    """A head whose size no expression shows: only running tells."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.weight = stem(), nn.Parameter(torch.randn(64, 5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bcn,nk->bck", self.stem(x).flatten(2), self.weight)


def test_sizes_that_fail_are_not_named() -> None:
    (finding,) = pr.analyze(Unfollowed(), example_inputs=torch.randn(1, *SIDE)).of("uneven-padding")
    assert finding.numbers["residues"] is None
    assert finding.numbers["nearest"] == [29]
    assert same_samples(Unfollowed(), (3, 29, 29))
    assert not same_samples(Unfollowed(), (3, 33, 33))


def test_sizes_behind_values_are_named_still() -> None:
    """A forward that reads a number out of a tensor cannot be tried without values."""

    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = stem()

        def forward(self, x: Tensor) -> Tensor:
            y = self.stem(x)
            return y * 2 if bool(y.sum() == y.sum()) else y

    (finding,) = pr.analyze(Reads(), example_inputs=torch.zeros(1, *SIDE)).of("uneven-padding")
    assert finding.numbers["nearest"] == [29, 33]
