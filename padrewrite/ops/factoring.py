"""Factors of a kernel: the best low rank by a truncated SVD, two branches by alternating least squares.

A kernel is ``(groups, outer, inner, ky, kx)`` in float64; see ``ops.separable`` for the equation. Per branch the
factors are matrices: ``left`` unfolds rows (outer, kx) by columns (inner, ky), ``right`` rows (outer, ky) by columns
(inner, kx).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

UNFOLDED = {"left": (0, 1, 4, 2, 3), "right": (0, 1, 3, 2, 4)}
"""Per branch the kernel's dimensions in the order of its matrix: group, rows, columns."""
SWEEPS, ENOUGH = 100, 5e-3
"""Alternations at most, and the relative gain of the squared error, over a few of them, below which they end."""
_STRIDE = 5
"""Alternations between two looks at the error."""
LARGE = 512
"""Matrices with more rows and columns are decomposed by the eigenvectors of their Gram matrix, in less time."""

Decomposition = tuple[Tensor, Tensor, Tensor]
"""Left singular vectors, singular values and right singular vectors of each group's matrix, largest first."""


@dataclass(frozen=True)
class Factors:
    """``outer @ inner`` per group: ``(groups, rows, mid)`` and ``(groups, mid, columns)``."""

    outer: Tensor
    inner: Tensor

    @property
    def product(self) -> Tensor:
        return self.outer @ self.inner


def unfold(kernel: Tensor, branch: str) -> Tensor:
    """``(groups, rows, columns)``: the kernel as the matrices that a branch of that name factorises."""
    moved = kernel.permute(UNFOLDED[branch])
    groups, a, b, c, d = moved.shape
    return moved.reshape(groups, a * b, c * d)


def refold(matrix: Tensor, branch: str, shape: torch.Size) -> Tensor:
    """The inverse of ``unfold``, for a kernel of ``shape``."""
    order = UNFOLDED[branch]
    moved = matrix.reshape([shape[d] for d in order])
    return moved.permute([order.index(d) for d in range(5)])


def decompose(kernel: Tensor, branch: str) -> Decomposition:
    """The singular value decomposition of the matrices that a branch factorises."""
    matrix = unfold(kernel, branch)
    if min(matrix.shape[1:]) <= LARGE:
        u, s, v = torch.linalg.svd(matrix, full_matrices=False)
        return u, s, v
    if matrix.shape[1] > matrix.shape[2]:
        v, s, u = _by_gram(matrix.mT)
        return u.mT, s, v.mT
    return _by_gram(matrix)


def _by_gram(matrix: Tensor) -> Decomposition:
    """Of a wide matrix. What squaring loses in the small values, a second step on the matrix itself brings back."""
    vectors = torch.linalg.eigh(matrix @ matrix.mT).eigenvectors.flip(-1)
    basis, rest = torch.linalg.qr((vectors.mT @ matrix).mT)
    inner, values, outer = torch.linalg.svd(rest.mT)
    return vectors @ inner, values, outer @ basis.mT


def truncate(kernel: Tensor, branch: str, mid: int, whole: Decomposition | None = None) -> Factors:
    """The best factors with ``mid`` middle channels per group: none have a smaller square error (Eckart, Young)."""
    u, s, v = decompose(kernel, branch) if whole is None else whole
    found = min(mid, s.shape[-1])
    return _widened(Factors(u[..., :found] * s[..., None, :found], v[..., :found, :]), mid)


def alternate(
    kernel: Tensor,
    mid: int,
    errors: list[float] | None = None,
    wholes: Mapping[str, Decomposition] | None = None,
    wanted: float = 0.0,
) -> dict[str, Factors]:
    """Factors of two branches: each branch in turn is fitted to what the other leaves of the kernel.

    It begins with the better single branch alone and never gets worse: every step is a least-squares solution in one
    factor.

    Args:
        errors: receives the square error at the start and after each few alternations.
        wholes: the decompositions of both branches, if they are known.
        wanted: a square error that is small enough to stop.
    """
    starts = {name: truncate(kernel, name, mid, None if wholes is None else wholes[name]) for name in UNFOLDED}
    total = float(kernel.square().sum())
    wrong = {name: float((unfold(kernel, name) - f.product).square().sum()) for name, f in starts.items()}
    first = min(wrong, key=lambda name: (wrong[name], name))
    second = next(name for name in UNFOLDED if name != first)
    factors = {first: starts[first], second: _nothing(kernel, second, mid)}
    errors = [] if errors is None else errors
    errors.append(wrong[first])
    for _ in range(0, SWEEPS, _STRIDE):
        if errors[-1] <= max(wanted, 1e-28 * total):
            break
        for _ in range(_STRIDE):
            for name, other in ((second, first), (first, second)):
                left = kernel - refold(factors[other].product, other, kernel.shape)
                factors[name] = _improved(unfold(left, name), factors[name])
        rest = kernel - sum(refold(f.product, name, kernel.shape) for name, f in factors.items())
        errors.append(float(rest.square().sum()))
        if errors[-2] - errors[-1] <= ENOUGH * errors[-2]:
            break
    return {name: factors[name] for name in UNFOLDED}


def _improved(matrix: Tensor, factors: Factors) -> Factors:
    """Two half steps: the best outer factor for this inner one, then the best inner one for that."""
    basis = torch.linalg.qr(factors.inner.mT).Q
    basis = torch.linalg.qr(matrix @ basis).Q
    inner = basis.mT @ matrix
    return _widened(Factors(basis, inner), factors.inner.shape[1])


def _nothing(kernel: Tensor, branch: str, mid: int) -> Factors:
    """A branch that adds nothing yet: orthonormal inner rows, as any start that is orthogonal to no residual."""
    groups, rows, columns = unfold(kernel, branch).shape
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(groups, columns, min(mid, columns), generator=generator, dtype=kernel.dtype)
    inner = torch.linalg.qr(noise).Q.mT
    return _widened(Factors(kernel.new_zeros(groups, rows, inner.shape[1]), inner), mid)


def _widened(factors: Factors, mid: int) -> Factors:
    """Padded with zeros to ``mid`` middle channels."""
    lacking = mid - factors.inner.shape[1]
    if lacking == 0:
        return factors
    pad = torch.nn.functional.pad
    return Factors(pad(factors.outer, (0, lacking)), pad(factors.inner, (0, 0, 0, lacking)))
