"""Growing a random network step by step, valid by construction: nothing is tried and thrown away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from padrewrite.fuzzing.choices import Choices, chance
from padrewrite.fuzzing.layers import MODES, Ints, Layer, LayerSpec, Pairs, Shape, reach
from padrewrite.fuzzing.networks import Convolve, NetSpec, Step

T = TypeVar("T")

SIZES = {1: (6, 40), 2: (5, 18), 3: (4, 9)}
"""Smallest and largest size of an input's axis, by rank."""
LARGEST = {1: 64, 2: 28, 3: 12}
"""Sizes that no resize or pad exceeds; convolutions may add a few pixels."""
CHANNELS = 16
"""No value has more."""
KERNELS = {1: 7, 2: 5, 3: 3}


class Grower:
    """A network while it grows: the values so far, and the choices that decide what comes next."""

    def __init__(self, choices: Choices, ranks: Sequence[int], padded: bool, pads: bool, linear: bool) -> None:
        """``padded``: convolutions may pad in any way; ``pads``: values may be padded; ``linear``: stay affine."""
        self.choices, self.padded, self.pads, self.linear = choices, padded, pads, linear
        self.rank = choices.pick(ranks)
        lo, hi = SIZES[self.rank]
        sizes = [choices.integer(lo, hi) for _ in range(self.rank)]
        self.shapes: list[Shape] = [(choices.integer(1, 4), *sizes)]
        self.layers: list[Layer] = []
        self.steps: list[Step] = []
        self.drawn: list[str] = []

    def integer(self, lo: int, hi: int) -> int:
        return self.choices.integer(lo, hi)

    def pick(self, options: Sequence[T]) -> T:
        return self.choices.pick(options)

    def chance(self, percent: int) -> bool:
        return chance(self.choices, percent)

    def each(self, draw: Callable[[int], T], read: int) -> list[T]:
        """``draw`` for every size of a value."""
        return [draw(n) for n in self.sizes(read)]

    def channels(self, read: int) -> int:
        return self.shapes[read][0]

    def sizes(self, read: int) -> Ints:
        return self.shapes[read][1:]

    @property
    def last(self) -> int:
        return len(self.shapes) - 1

    def limit(self, n: int) -> int:
        """The largest size that an axis of size ``n`` may get."""
        return max(LARGEST[self.rank], n)

    def values(self, fits: Callable[[int], bool]) -> list[int]:
        return [i for i in range(len(self.shapes)) if fits(i)]

    def choose(self, values: Sequence[int]) -> int:
        """The newest half of the time: chains are as likely as branches."""
        return values[-1] if not self.chance(50) else self.pick(values)

    def emit(self, step: Step) -> int:
        """Adds a step; returns the number of its value."""
        output = step.output([self.shapes[i] for i in step.reads], self.layers)
        assert output is not None, f"{step} of {[self.shapes[i] for i in step.reads]}"
        self.steps.append(step)
        self.shapes.append(output)
        return self.last

    def add(self, layer: Layer) -> int:
        """Adds a layer; returns its number."""
        self.layers.append(layer)
        return len(self.layers) - 1

    def conv(self, read: int, out: int, kernel: Ints | None = None, dilation: int = 1) -> int:
        """A new convolution that keeps the sizes: 1x1, or of an odd span with zeros around."""
        kernel = kernel or (1,) * self.rank
        padding = tuple(dilation * (k - 1) // 2 for k in kernel)
        rates = tuple(dilation if k > 1 else 1 for k in kernel)
        layer = LayerSpec(
            self.channels(read), out, kernel, dilation=rates, padding=padding, functional=self.chance(15)
        )
        return self.emit(Convolve((read,), self.add(layer)))

    def finish(self) -> NetSpec:
        batch, seed = self.integer(1, 2), self.integer(0, 2**31)
        return NetSpec(self.shapes[0], tuple(self.layers), tuple(self.steps), batch, seed, tuple(self.drawn))


def draw_conv(grower: Grower, read: int) -> None:
    """A call of a layer that is there, or of a new one."""
    rank, shape = grower.rank, grower.shapes[read]
    explicit: Pairs = ()
    if grower.padded and grower.chance(25):
        explicit = tuple((grower.integer(0, 2), grower.integer(0, 2)) for _ in range(rank))
    explicit = explicit if any(map(any, explicit)) else ()
    fits = [
        i
        for i, old in enumerate(grower.layers)
        if isinstance(old, LayerSpec)
        and (old.mode == "zeros" or not explicit)
        and old.output(shape, explicit) is not None
    ]
    shared = bool(fits) and grower.chance(40)
    layer = grower.pick(fits) if shared else grower.add(_draw_layer(grower, shape, bool(explicit)))
    grower.emit(Convolve((read,), layer, explicit))


def _draw_layer(grower: Grower, shape: Shape, explicit: bool) -> LayerSpec:
    """A convolution that accepts an input of ``shape``."""
    channels, *sizes = shape
    functional = grower.chance(25)
    mode = "zeros"
    if grower.padded and not explicit and not functional and grower.chance(50):
        mode = grower.pick(MODES)
    groups = grower.pick([1, 1, channels, *(g for g in range(1, channels + 1) if channels % g == 0)])
    out = groups * grower.integer(1, max(1, min(2 if groups > 1 else 6, CHANNELS // groups)))
    common: dict[str, Any] = {"groups": groups, "bias": not grower.chance(30), "mode": mode, "functional": functional}
    if grower.padded and grower.chance(30):
        padding = grower.pick(("same", "same", "valid"))
        axes = [_string_window(grower, n, padding, mode) for n in sizes]
        kernel, stride, dilation = zip(*axes)
        return LayerSpec(channels, out, kernel, stride, dilation, padding, **common)
    kernel, stride, dilation, padding = zip(*[_window(grower, n, mode) for n in sizes])
    return LayerSpec(channels, out, kernel, stride, dilation, padding, **common)


def _window(grower: Grower, n: int, mode: str) -> tuple[int, int, int, int]:
    """(kernel, stride, dilation, padding) of one axis; "half" padding most of the time."""
    widest = min(3, reach(mode, n))
    dilation = grower.pick((1, 1, 1, 2, 2, 3))
    kernel = grower.integer(1, min(KERNELS[grower.rank], (n + 2 * widest - 1) // dilation + 1))
    spread = dilation * (kernel - 1)
    least = max(0, -(-(spread + 1 - n) // 2))
    half = min(max(spread // 2, least), reach(mode, n))
    padding = half if not grower.chance(40) else grower.integer(least, max(least, widest))
    return kernel, grower.pick((1, 1, 1, 1, 2, 2, 3)), dilation, padding


def _string_window(grower: Grower, n: int, padding: str, mode: str) -> tuple[int, int, int]:
    """(kernel, stride, dilation) of one axis for padding "same" or "valid"."""
    dilation = grower.pick((1, 1, 2, 3))
    # The odd pixel of "same" lies after: ceil(spread / 2) pixels must be there to be filled in.
    spread = min(2 * reach(mode, n), 12) if padding == "same" else n - 1
    kernel = grower.integer(1, min(KERNELS[grower.rank], spread // dilation + 1))
    return kernel, 1 if padding == "same" else grower.pick((1, 1, 2)), dilation
