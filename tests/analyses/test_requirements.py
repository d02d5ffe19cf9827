"""Sizes that heads and parameters fix, against running the model at every size near."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import padrewrite as pr
from analyses.heads import (
    SIDE,
    Chosen,
    Free,
    Inferred,
    Pooled,
    Resized,
    Signal,
    Tokens,
    Turned,
    Viewed,
    by_own_norm,
    by_own_positions,
    by_own_statistics,
    by_own_values,
    by_own_weight,
    named_arguments,
    plain,
    stem,
    weighted_norm,
)
from padrewrite.analyses.analysis import Finding


def square_only(model: nn.Module, n: int) -> bool:
    """Whether the model runs on one sample of ``n`` by ``n``."""
    try:
        return len(model(torch.zeros(1, 3, n, n))) == 1
    except RuntimeError:
        return False


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
    "weight norm": (lambda: stem(nn.Flatten(), weight_norm(nn.Linear(4 * 8 * 8, 10))), SIDE),
    "weighted norm": (weighted_norm, SIDE),
    "chosen positions": (Chosen, SIDE),
    "named": (named_arguments, SIDE),
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


FOLLOWING: dict[str, Callable[[], nn.Module]] = {
    "layer norm": lambda: plain(lambda conv, x: by_own_norm(conv(x), 1)),
    "layer norm of positions": lambda: plain(lambda conv, x: by_own_norm(conv(x), 2)),
    "weights": lambda: plain(lambda conv, x: by_own_weight(conv(x)), 2),
    "values": lambda: plain(lambda conv, x: by_own_values(conv(x)), 2),
    "both": lambda: plain(lambda conv, x: F.linear(y := conv(x)[:, 0], y[0])),
    "same": lambda: plain(lambda conv, x: F.linear(y := conv(x)[0, 0], y)[None]),
    "statistics": lambda: plain(lambda conv, x: by_own_statistics(conv(x))),
    "positions": lambda: plain(lambda conv, x: by_own_positions(conv(x))),
    "resized": Resized,
}


@pytest.mark.parametrize("name", FOLLOWING)
def test_what_follows_the_input_fixes_nothing(name: str) -> None:
    model = FOLLOWING[name]()
    assert all(square_only(model, n) for n in range(4, 81))
    assert requirements(model, SIDE) == ()


REFUSING: dict[str, Callable[[], nn.Module]] = {
    "reflect": lambda: nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(3, 2, 7, 8), nn.Flatten(), nn.Linear(2, 3)),
    "circular": lambda: nn.Sequential(nn.Conv2d(3, 2, 7, 8, 3, padding_mode="circular"), nn.Flatten(), nn.Linear(2, 3)),
}


@pytest.mark.parametrize("name", REFUSING)
def test_small_sizes_that_padding_refuses(name: str) -> None:
    """Reflection and wrapping need as many positions as they pad."""
    model = REFUSING[name]()
    (finding,) = requirements(model, (3, 8, 8))
    sizes = [n for n in range(1, 81) if square_only(model, n)]
    assert finding.numbers["sizes"] == sizes
    assert f"needs to be {sizes[0]} to 8, for" in finding.message


def test_dimensions_are_told_in_order() -> None:
    """Also where the model exchanges them."""
    model = nn.Sequential(Turned(), stem(nn.LayerNorm([4, 8, 8])))
    found = pr.analyze(model, example_inputs=torch.randn(1, *SIDE))
    for code in ("size-requirement", "uneven-padding"):
        (finding,) = found.of(code)
        assert finding.numbers["inputs"] == [[0, 2], [0, 3]]
        assert "along input dimensions 2 and 3" in finding.message


def test_a_view_with_so_many_numbers_per_sample() -> None:
    """At some other sizes it runs and makes samples of parts of samples."""
    model = plain(lambda conv, x: conv(x).view(-1, 64), 8)
    (finding,) = requirements(model, SIDE)
    shapes = {n: model(torch.zeros(1, 3, n, n)).shape for n in range(8, 81) if (-(-n // 8)) ** 2 % 16 == 0}
    assert finding.numbers["sizes"] == [n for n, shape in shapes.items() if shape == (1, 64)] == list(range(25, 33))
    assert shapes[64] == (4, 64)
    assert finding.message.endswith("to read the size that it is made for, or samples mix")
    assert requirements(Viewed(), SIDE)[0].message.endswith(", or samples mix")
    assert "mix" not in requirements(stem(nn.Flatten(), nn.Linear(256, 3)), SIDE)[0].message


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
