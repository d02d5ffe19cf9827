"""Steps of a random network: each makes one value from earlier ones, and says beforehand of which shape."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from padrewrite.fuzzing.layers import (
    Ints,
    Layer,
    LayerSpec,
    NormSpec,
    PadSpec,
    Pairs,
    Shape,
    SymmetricSpec,
    TransposedSpec,
    flat,
    padded,
)
from padrewrite.fuzzing.text import Described
from padrewrite.ops.symmetric import symmetric_conv

if TYPE_CHECKING:
    from padrewrite.fuzzing.networks import Net


@dataclass(frozen=True, repr=False)
class Step(Described, ABC):
    """One value of a `NetSpec`."""

    reads: Ints
    """The values it is made from; value 0 is the input."""
    kind: ClassVar[str]

    @abstractmethod
    def output(self, shapes: Sequence[Shape], layers: Sequence[Layer]) -> Shape | None:
        """The shape of its value for reads of these shapes; None if torch could not compute it."""

    @abstractmethod
    def run(self, read: Sequence[Tensor], net: Net) -> Tensor:
        """Its value."""


@dataclass(frozen=True, repr=False)
class Convolve(Step):
    """A call of a convolution."""

    kind: ClassVar[str] = "conv"
    layer: int
    explicit: Pairs = ()
    """Zero padding by ``F.pad`` before, (lo, hi) per axis."""

    def output(self, shapes: Sequence[Shape], layers: Sequence[Layer]) -> Shape | None:
        layer = layers[self.layer]
        return layer.output(shapes[0], self.explicit) if isinstance(layer, LayerSpec) else None

    def run(self, read: Sequence[Tensor], net: Net) -> Tensor:
        x, module = read[0], net.layers[self.layer]
        layer: Any = net.spec.layers[self.layer]
        if self.explicit:
            x = F.pad(x, flat(self.explicit))
        if not layer.functional:
            return module(x)
        function: Any = getattr(F, f"conv{net.spec.rank}d")
        return function(x, module.weight, module.bias, layer.stride, layer.padding, layer.dilation, layer.groups)


@dataclass(frozen=True, repr=False)
class Transpose(Step):
    """A call of a transposed convolution."""

    kind: ClassVar[str] = "transposed_conv"
    layer: int

    def output(self, shapes: Sequence[Shape], layers: Sequence[Layer]) -> Shape | None:
        layer = layers[self.layer]
        return layer.output(shapes[0]) if isinstance(layer, TransposedSpec) else None

    def run(self, read: Sequence[Tensor], net: Net) -> Tensor:
        module, layer = net.layers[self.layer], net.spec.layers[self.layer]
        assert isinstance(layer, TransposedSpec)
        if not layer.functional:
            return module(read[0])
        function: Any = getattr(F, f"conv_transpose{net.spec.rank}d")
        numbers = (layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation)
        return function(read[0], module.weight, module.bias, *numbers)


@dataclass(frozen=True, repr=False)
class Symmetric(Step):
    """A call of a symmetric convolution."""

    kind: ClassVar[str] = "symmetric_conv"
    layer: int

    def output(self, shapes: Sequence[Shape], layers: Sequence[Layer]) -> Shape | None:
        layer = layers[self.layer]
        return layer.output(shapes[0]) if isinstance(layer, SymmetricSpec) else None

    def run(self, read: Sequence[Tensor], net: Net) -> Tensor:
        module, layer = net.layers[self.layer], net.spec.layers[self.layer]
        assert isinstance(layer, SymmetricSpec)
        if not layer.functional:
            return module(read[0])
        options: dict[str, Any] = {"order": layer.order, "scale": layer.scale, "groups": layer.groups}
        given: Any = module
        return symmetric_conv(read[0], given.weight, given.bias, layer.stride, layer.dilation, **options)


@dataclass(frozen=True, repr=False)
class Norm(Step):
    """A call of a batch norm."""

    kind: ClassVar[str] = "batch_norm"
    layer: int

    def output(self, shapes: Sequence[Shape], layers: Sequence[Layer]) -> Shape | None:
        layer = layers[self.layer]
        return shapes[0] if isinstance(layer, NormSpec) and layer.channels == shapes[0][0] else None

    def run(self, read: Sequence[Tensor], net: Net) -> Tensor:
        return net.layers[self.layer](read[0])


@dataclass(frozen=True, repr=False)
class PadLayer(Step):
    """A call of a padding layer."""

    kind: ClassVar[str] = "pad"
    layer: int

    def output(self, shapes: Sequence[Shape], layers: Sequence[Layer]) -> Shape | None:
        layer = layers[self.layer]
        return padded(shapes[0], layer.amounts, layer.mode) if isinstance(layer, PadSpec) else None

    def run(self, read: Sequence[Tensor], net: Net) -> Tensor:
        return net.layers[self.layer](read[0])


@dataclass(frozen=True, repr=False)
class Pool(Step):
    """Max or average pooling."""

    kind: ClassVar[str] = "pool"
    how: str
    """max or avg."""
    kernel: Ints
    stride: Ints = ()
    """Empty: the kernel's."""
    padding: Ints = ()
    dilation: Ints = ()
    """Of max pooling."""
    ceil_mode: bool = False
    count_include_pad: bool = True
    """Of average pooling."""

    def output(self, shapes: Sequence[Shape], layers: Sequence[Layer]) -> Shape | None:
        channels, *sizes = shapes[0]
        found = [self._axis(axis, n) for axis, n in enumerate(sizes)]
        return (channels, *found) if min(found) > 0 else None

    def _axis(self, axis: int, n: int) -> int:
        """Size of the result along one axis; 0 if there is none, or if a window would see nothing but padding."""
        k, s, p, d = (values[axis] for values in self._numbers())
        span = d * (k - 1) + 1
        if 2 * p > span or (self.how == "avg" and len(self.kernel) == 3 and k > n):
            return 0  # torch's rules; the second is that of avg_pool3d alone
        size = (n + 2 * p - span + (s - 1 if self.ceil_mode else 0)) // s + 1
        if self.ceil_mode and (size - 1) * s >= n + p:
            size -= 1
        empty = any(not any(0 <= i * s - p + t * d < n for t in range(k)) for i in range(size))
        return 0 if empty else size

    def _numbers(self) -> tuple[Ints, Ints, Ints, Ints]:
        rank = len(self.kernel)
        return self.kernel, self.stride or self.kernel, self.padding or (0,) * rank, self.dilation or (1,) * rank

    def run(self, read: Sequence[Tensor], net: Net) -> Tensor:
        function: Any = getattr(F, f"{self.how}_pool{net.spec.rank}d")
        kernel, stride, padding, dilation = self._numbers()
        if self.how == "max":
            return function(read[0], kernel, stride, padding, dilation, self.ceil_mode)
        return function(read[0], kernel, stride, padding, self.ceil_mode, self.count_include_pad)


@dataclass(frozen=True, repr=False)
class AdaptivePool(Step):
    """Pooling to a given size."""

    kind: ClassVar[str] = "adaptive_pool"
    how: str
    """max or avg."""
    size: Ints

    def output(self, shapes: Sequence[Shape], layers: Sequence[Layer]) -> Shape | None:
        return shapes[0][0], *self.size

    def run(self, read: Sequence[Tensor], net: Net) -> Tensor:
        function: Any = getattr(F, f"adaptive_{self.how}_pool{net.spec.rank}d")
        return function(read[0], self.size)


@dataclass(frozen=True, repr=False)
class GlobalPool(Step):
    """One number per channel, by a reduction over all positions; sizes stay as ones."""

    kind: ClassVar[str] = "global_pool"
    how: str
    """mean, amax or sum."""

    def output(self, shapes: Sequence[Shape], layers: Sequence[Layer]) -> Shape | None:
        return shapes[0][0], *(1,) * (len(shapes[0]) - 1)

    def run(self, read: Sequence[Tensor], net: Net) -> Tensor:
        function: Any = getattr(torch, self.how)
        return function(read[0], dim=tuple(range(2, 2 + net.spec.rank)), keepdim=True)
