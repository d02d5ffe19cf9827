"""Parts that real networks are built of: several steps at once, and branches that meet again."""

from __future__ import annotations

from padrewrite.fuzzing.growing import CHANNELS, Grower
from padrewrite.fuzzing.kinds import RESIZES, draw_batch_norm
from padrewrite.fuzzing.layers import Ints, LayerSpec
from padrewrite.fuzzing.networks import Convolve, Crop, GlobalPool, Interpolate, Merge, Pad, Pointwise, Pool

RATES = ((1, 2, 3), (2, 2, 2), (1, 2, 4), (1, 2), (2, 4), (1, 1), (3, 1, 2))


def draw_residual(g: Grower, read: int) -> None:
    """A chain of dilated convolutions around which the input is carried and added."""
    middle, x = g.integer(1, 4), read
    rates = g.pick(RATES)
    for index, rate in enumerate(rates):
        out = g.channels(read) if index == len(rates) - 1 else middle
        x = g.conv(x, out, _kernel(g), rate)
        if g.chance(30):
            draw_batch_norm(g, x)
            x = g.last
        if index < len(rates) - 1 and not g.linear and g.chance(60):
            x = g.emit(Pointwise((x,), g.pick(("relu", "relu_"))))
    g.emit(Merge((x, read), "add"))


def _kernel(g: Grower) -> Ints:
    """3 on all axes, 5, or 3 on one axis alone."""
    kind = g.pick(("cube", "cube", "large", "line"))
    if kind == "line":
        axis = g.integer(0, g.rank - 1)
        return tuple(3 if a == axis else 1 for a in range(g.rank))
    return (3 if kind == "cube" or g.rank == 3 else 5,) * g.rank


def draw_aspp(g: Grower, read: int) -> None:
    """Parallel branches of growing rates, with the mean of the image among them or not; then 1x1."""
    width = g.integer(1, 3)
    branches = [g.conv(read, width)]
    for rate in g.pick(((1, 2), (2, 4), (1, 3, 5), (2, 3, 4))):
        branches.append(g.conv(read, width, (3,) * g.rank, rate))
    if g.chance(50):
        pooled = g.conv(g.emit(GlobalPool((read,), "mean")), width)
        mode = g.pick([m for m in RESIZES[g.rank] if m.endswith("linear")] + ["nearest"])
        branches.append(g.emit(Interpolate((pooled, read), mode)))
    g.conv(g.emit(Merge(tuple(branches), "cat")), g.integer(1, 4))


def draw_squeeze_excite(g: Grower, read: int) -> None:
    """Each channel scaled by a number that depends on the means of all."""
    channels = g.channels(read)
    x = g.conv(g.emit(GlobalPool((read,), "mean")), g.integer(1, max(1, channels // 2)))
    x = g.conv(g.emit(Pointwise((x,), "relu")), channels)
    g.emit(Merge((read, g.emit(Pointwise((x,), "sigmoid"))), "mul"))


def draw_skip(g: Grower, read: int) -> None:
    """An earlier value joins: the newer one is brought to its sizes first, as in the way up of a U-Net."""
    others = [i for i in range(read) if g.sizes(i) != g.sizes(read)]
    other = g.pick(others)
    x = _brought(g, read, other)
    if g.channels(x) + g.channels(other) > CHANNELS or g.chance(40):
        x = x if g.channels(x) == g.channels(other) else g.conv(x, g.channels(other))
        g.emit(Merge((x, other), "add"))
        return
    g.emit(Merge((x, other), "cat"))


def _brought(g: Grower, read: int, other: int) -> int:
    """``read`` at the sizes of ``other``: resized to them, or cropped and padded."""
    have, wanted = g.sizes(read), g.sizes(other)
    ways = ["like", "like", "size", "crop"]
    way = g.pick(ways if g.pads else ways[:-1])
    if way != "crop":
        mode = g.pick(RESIZES[g.rank])
        corners = g.pick((False, True)) if mode.endswith(("linear", "cubic")) else None
        if way == "like":
            return g.emit(Interpolate((read, other), mode, align_corners=corners))
        return g.emit(Interpolate((read,), mode, wanted, align_corners=corners))
    x = read
    if any(n > m for n, m in zip(have, wanted)):
        starts = [max(0, n - m) // 2 for n, m in zip(have, wanted)]
        x = g.emit(Crop((x,), tuple((s or None, s + min(n, m), 1) for s, n, m in zip(starts, have, wanted))))
    if any(n < m for n, m in zip(have, wanted)):
        missing = [max(0, m - n) for n, m in zip(have, wanted)]
        x = g.emit(Pad((x,), tuple((total // 2, total - total // 2) for total in missing)))
    return x


def can_skip(g: Grower, read: int) -> bool:
    return any(g.sizes(i) != g.sizes(read) for i in range(read))


def draw_downsample(g: Grower, read: int) -> None:
    """A strided convolution beside a pool of the same size, as in ENet's blocks; their phases may differ."""
    rank, out = g.rank, g.integer(1, 3)
    layer = LayerSpec(g.channels(read), out, (3,) * rank, (2,) * rank, padding=(1,) * rank)
    conv = g.emit(Convolve((read,), g.add(layer)))
    how = "avg" if g.linear else g.pick(("max", "avg"))
    ceil = g.chance(50)
    window = ((2,) * rank, (2,) * rank, (0,) * rank) if ceil else ((3,) * rank, (2,) * rank, (1,) * rank)
    pool = g.emit(Pool((read,), how, *window, ceil_mode=ceil))
    g.emit(Merge((conv, pool), "cat"))
