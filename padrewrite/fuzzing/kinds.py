"""What a random network is grown from: windows, resizes and merges, one after the other."""

from __future__ import annotations

from typing import Any

from padrewrite.fuzzing.growing import CHANNELS, Grower
from padrewrite.fuzzing.layers import NormSpec, PadSpec, Pairs, SymmetricSpec, TransposedSpec, reach
from padrewrite.fuzzing.networks import (
    AdaptivePool,
    Convolve,
    Crop,
    GlobalPool,
    Interpolate,
    Merge,
    Norm,
    Pad,
    PadLayer,
    PadTo,
    Pointwise,
    Pool,
    Shuffle,
    Symmetric,
    Transpose,
)
from padrewrite.fuzzing.reshaping import LINEAR, POINTWISE

FACTORS = (2.0, 0.5, 1.5, 3.0, 0.7, 1.3)
RESIZES = {
    1: ("nearest", "nearest-exact", "linear", "linear", "area"),
    2: ("nearest", "nearest-exact", "bilinear", "bilinear", "bicubic", "bicubic", "area"),
    3: ("nearest", "nearest-exact", "trilinear", "trilinear", "area"),
}


def draw_transposed_conv(g: Grower, read: int) -> None:
    channels = g.channels(read)
    groups = g.pick([1, 1, *(c for c in range(1, channels + 1) if channels % c == 0)])
    out = groups * g.integer(1, max(1, min(4, CHANNELS // groups)))
    axes = [_transposed_window(g, n) for n in g.sizes(read)]
    kernel, stride, dilation, padding, more = zip(*axes)
    options: dict[str, Any] = {"groups": groups, "bias": not g.chance(30), "functional": g.chance(25)}
    layer = TransposedSpec(channels, out, kernel, stride, dilation, padding, more, **options)
    g.emit(Transpose((read,), g.add(layer)))


def _transposed_window(g: Grower, n: int) -> tuple[int, int, int, int, int]:
    """(kernel, stride, dilation, padding, output padding) of one axis."""
    stride = g.pick([s for s in (1, 2, 2, 3) if (n - 1) * s + 1 <= g.limit(n)])
    room = g.limit(n) - (n - 1) * stride - 1
    dilation = g.pick((1, 1, 2))
    kernel = 1 + g.integer(0, min(4, room // dilation))
    spread = dilation * (kernel - 1)
    more = g.integer(0, min(max(stride, dilation) - 1, room - spread))
    padding = g.integer(0, min(2, ((n - 1) * stride + spread + more) // 2))
    return kernel, stride, dilation, padding, more


def draw_symmetric_conv(g: Grower, read: int) -> None:
    channels, rank = g.channels(read), g.rank
    groups = g.pick([1, 1, *(c for c in range(1, channels + 1) if channels % c == 0)])
    out = groups * g.integer(1, max(1, min(4, CHANNELS // groups)))
    widest = {1: (2, 2, 4, 3, 6), 2: (2, 2, 4, 3), 3: (2, 2, 3)}[rank]
    kernel = tuple(g.pick(widest) for _ in range(rank))
    stride, dilation = (tuple(g.pick((1, 1, 1, 2)) for _ in range(rank)) for _ in range(2))
    options: dict[str, Any] = {"groups": groups, "bias": not g.chance(30)}
    options["functional"] = g.chance(25) or groups == channels  # the layer refuses one channel per output
    options |= {"order": g.pick(("balanced", "balanced", "raster")), "scale": "mean" if g.chance(20) else None}
    g.emit(Symmetric((read,), g.add(SymmetricSpec(channels, out, kernel, stride, dilation, **options))))


def draw_max_pool(g: Grower, read: int) -> None:
    _draw_pool(g, read, "max")


def draw_avg_pool(g: Grower, read: int) -> None:
    _draw_pool(g, read, "avg")


def _draw_pool(g: Grower, read: int, how: str) -> None:
    axes = [_pool_window(g, n, how) for n in g.sizes(read)]
    kernel, stride, padding, dilation = zip(*axes)
    options: dict[str, Any] = {"ceil_mode": g.chance(35), "count_include_pad": how == "max" or not g.chance(35)}
    step = Pool((read,), how, kernel, stride, padding, dilation, **options)
    if step.output([g.shapes[read]], ()) is None:  # a dilated window that sees nothing but padding
        step = Pool((read,), how, kernel, stride, **options)
    g.emit(step)


def _pool_window(g: Grower, n: int, how: str) -> tuple[int, int, int, int]:
    """(kernel, stride, padding, dilation) of one axis."""
    kernel = g.integer(1, min(4, n))
    most = 1 if how == "avg" or kernel == 1 else (n - 1) // (kernel - 1)
    dilation = g.pick([d for d in (1, 1, 1, 2) if d <= most])
    padding = g.integer(0, kernel // 2)
    return kernel, g.pick((2, 1, 2, 3, kernel)), padding, dilation


def draw_adaptive_pool(g: Grower, read: int) -> None:
    how = "avg" if g.linear or not g.chance(40) else "max"
    g.emit(AdaptivePool((read,), how, tuple(g.each(lambda n: g.integer(1, min(n + 2, g.limit(n))), read))))


def draw_global_pool(g: Grower, read: int) -> None:
    """The pooled value, and mostly a merge that spreads it over what it was pooled from."""
    how = g.pick(("mean", "mean", "sum") if g.linear else ("mean", "mean", "sum", "amax"))
    pooled = g.emit(GlobalPool((read,), how))
    if g.chance(75):
        merge = g.pick(("add", "sub") if g.linear else ("add", "sub", "mul", "maximum"))
        g.emit(Merge((read, pooled), merge))


def draw_pad(g: Grower, read: int) -> None:
    mode = g.pick(("constant", "constant", "constant", "reflect", "replicate", "circular"))
    axes: list[tuple[int, int]] = []
    for n in g.sizes(read):
        most = min(3, reach(mode, n), (g.limit(n) - n) // 2)
        least = -min(2, (n - 1) // 2) if mode == "constant" and g.chance(25) else 0
        axes.append((g.integer(least, most), g.integer(least, most)))
    amounts: Pairs = tuple(axes)
    value = 1.0 if mode == "constant" and g.chance(25) else 0.0
    if g.chance(35):
        g.emit(PadLayer((read,), g.add(PadSpec(amounts, mode, value))))
        return
    if mode == "constant" and g.chance(40):
        amounts = amounts[-g.integer(1, g.rank) :]
    g.emit(Pad((read,), amounts, mode, value))


def draw_pad_to(g: Grower, read: int) -> None:
    """Half of the time to what is there: then nothing is missing at this size, but may be at others."""
    multiples = [m for m in (2, 3, 4) if all(n + -n % m <= g.limit(n) for n in g.sizes(read))]
    exact = [m for m in multiples if not any(n % m for n in g.sizes(read))]
    g.emit(PadTo((read,), g.pick(exact if exact and g.chance(50) else multiples or [1])))


def draw_crop(g: Grower, read: int) -> None:
    g.emit(Crop((read,), tuple(g.each(lambda n: _slice(g, n), read))))


def _slice(g: Grower, n: int) -> tuple[int | None, int | None, int]:
    """(start, stop, step) that leaves something of ``n``; ends counted from the front, from the back, or open."""
    if not g.chance(70):
        return None, None, 1
    start, end = g.integer(0, (n - 1) // 2), g.integer(0, (n - 1) // 2)
    stop = None if end == 0 else g.pick((-end, n - end))
    return start or None, stop, g.pick((1, 1, 2, 3))


def draw_interpolate(g: Grower, read: int) -> None:
    mode = g.pick(RESIZES[g.rank])
    corners = g.pick((False, True, None)) if mode.endswith(("linear", "cubic")) else None
    if g.chance(50):
        size = tuple(g.each(lambda n: g.integer(1, min(2 * n + 2, g.limit(n))), read))
        g.emit(Interpolate((read,), mode, size, align_corners=corners))
        return
    one = g.chance(60)
    options = [f for f in FACTORS if all(1 <= n * f <= g.limit(n) for n in g.sizes(read))]
    factors = (g.pick(options or [1.0]),) * g.rank
    if not one:
        factors = tuple(g.each(lambda n: g.pick([f for f in FACTORS if 1 <= n * f <= g.limit(n)] or [1.0]), read))
    g.emit(Interpolate((read,), mode, None, factors, corners, True if g.chance(25) else None))


def draw_pixel_shuffle(g: Grower, read: int) -> None:
    """A shuffle behind a 1x1 convolution that makes its channels, or an unshuffle of what divides."""
    sizes = g.sizes(read)
    up, down = _shuffles(g, read)
    if up and (not down or not g.chance(50)):
        r = g.pick(up)
        wide = g.conv(read, r * r * g.integer(1, CHANNELS // (r * r)))
        g.emit(Shuffle((wide,), r))
        return
    r = g.pick(down)
    few = CHANNELS // (r * r)
    if g.channels(read) > few:
        read = g.conv(read, g.integer(1, few))
    if any(n % r for n in sizes):
        read = g.emit(Crop((read,), tuple((None, n - n % r, 1) for n in sizes)))
    g.emit(Shuffle((read,), r, inverse=True))


def can_shuffle(g: Grower, read: int) -> bool:
    return g.rank == 2 and any(_shuffles(g, read))


def _shuffles(g: Grower, read: int) -> tuple[list[int], list[int]]:
    """Factors by which a value can be shuffled, and unshuffled."""
    sizes = g.sizes(read)
    return [r for r in (2, 3) if all(r * n <= g.limit(n) for n in sizes)], [r for r in (2, 3) if min(sizes) >= r]


def draw_batch_norm(g: Grower, read: int) -> None:
    g.emit(Norm((read,), g.add(NormSpec(g.channels(read), g.rank))))


def draw_pointwise(g: Grower, read: int) -> None:
    fresh = read > 0 and isinstance(g.steps[read - 1], (Convolve, Transpose, Symmetric, Norm))
    unread = all(read not in step.reads for step in g.steps)
    in_place = fresh and unread  # a value that nothing else needs as it was, as behind a convolution
    names = LINEAR if g.linear else ["relu", *(f for f in POINTWISE if f != "relu_"), *["relu_"] * (3 * in_place)]
    g.emit(Pointwise((read,), g.pick(names)))


def draw_add(g: Grower, read: int) -> None:
    _draw_merge(g, read, g.pick(("add", "add", "sub") if g.linear else ("add", "add", "sub", "maximum")))


def draw_mul(g: Grower, read: int) -> None:
    _draw_merge(g, read, "mul")


def _draw_merge(g: Grower, read: int, how: str) -> None:
    """With a value of the same sizes; channels are made equal by a 1x1 convolution."""
    other = g.pick(_same_sizes(g, read))
    if 1 not in (g.channels(read), g.channels(other)) and g.channels(other) != g.channels(read):
        other = g.conv(other, g.channels(read))
    g.emit(Merge((read, other), how))


def draw_cat(g: Grower, read: int) -> None:
    others = [i for i in _same_sizes(g, read) if g.channels(i) + g.channels(read) <= CHANNELS]
    other = g.pick(others)
    g.emit(Merge(g.pick(((other, read), (read, other))), "cat"))


def can_cat(g: Grower, read: int) -> bool:
    return any(g.channels(i) + g.channels(read) <= CHANNELS for i in _same_sizes(g, read))


def _same_sizes(g: Grower, read: int) -> list[int]:
    """Values of the sizes of ``read``, itself only if there is no other."""
    alike = g.values(lambda i: g.sizes(i) == g.sizes(read))
    return [i for i in alike if i != read] or alike
