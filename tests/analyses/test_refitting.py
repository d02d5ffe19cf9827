"""Windows on a finer grid, one by one: torch's own pools at all small sizes, against what they become."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from padrewrite.analyses.fineness import AxisState
from padrewrite.analyses.refitting import Refit, refit
from padrewrite.errors import RegionBlocked
from padrewrite.graph import Call, Handle, PoolSite
from padrewrite.ops.axis import Slide
from padrewrite.ops.pool import Pool, emit_pool, read_pool

KINDS = {
    "max": lambda k, s, p, ceil: (torch.max_pool1d, {"ceil_mode": ceil}),
    "average": lambda k, s, p, ceil: (F.avg_pool1d, {"ceil_mode": ceil, "count_include_pad": False}),
    "average that counts padding": lambda k, s, p, ceil: (F.avg_pool1d, {"ceil_mode": ceil}),
}
WINDOWS = [(k, s, p) for k, s in product(range(1, 5), repeat=2) for p in range(k // 2 + 1)]


def fine_maps(n: int, factor: int) -> Iterator[Tensor]:
    """Every length of a map whose positions at steps of ``factor`` are ``n`` in number."""
    for size in range((n - 1) * factor + 1, n * factor + 1):
        yield torch.randn(1, 2, size, dtype=torch.float64)


def refitted(call: Any, factor: int, stride: int, size: int, longer: int) -> tuple[Pool, int | None]:
    """What a pool becomes on a map of ``size`` positions that is ``factor`` times finer, and its number of outputs."""
    w = call.op.window
    one = Refit(stride, AxisState(Fraction(1), factor, size), longer)
    site = PoolSite("pool", "pool", 0, None, call.op, Handle(Call((), "max_pool1d")))
    new = refit(site, [one])
    assert isinstance(new, Pool)
    return new, one.size(Slide(w.kernel[0], w.stride[0], w.dilation[0], w.lo[0], w.hi[0], ceil=call.op.ceil))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ceil", [False, True])
def test_old_outputs_stand_in_the_new_ones(kind: str, ceil: bool) -> None:
    """As it is, and made longer as far as no position is added on the grid; blocked only where that is documented."""
    compared, hung, blocked = 0, 0, set[str]()
    for (k, s, p), factor, n in product(WINDOWS, (1, 2), (2, 3, 5)):
        pool, options = KINDS[kind](k, s, p, ceil)
        call = read_pool(pool, (None, k, s, p), options)
        assert call is not None
        for x, stride in product(fine_maps(n, factor) if n + 2 * p >= k else (), {1, s} if s != 3 else {3}):
            wanted, step = pool(x[..., ::factor], k, s, p, **options), factor * (s // stride)
            for longer in range(step if (stride, factor) != (s, 1) else 1):
                try:
                    new, size = refitted(call, factor, stride, x.shape[-1], longer)
                except RegionBlocked as stop:
                    blocked.add(stop.code)
                    break
                assert size is not None
                if size > step * wanted.shape[-1]:
                    break
                got = emit_pool(x, new)
                assert got.shape[-1] == size
                assert torch.allclose(got[..., ::step], wanted, rtol=1e-12, atol=1e-12)
                compared += 1
                hung += wanted.shape[-1] > (n + 2 * p - k) // s + 1
    assert compared > 100
    assert (hung > 20) == ceil
    assert blocked <= {"ceil-mode", "blind-window"}
    assert ("ceil-mode" in blocked) == ceil
