"""Random networks: a specification that prints as Python, and the module it builds.

    spec = NetSpec(shape=(3, 9, 12), layers=(LayerSpec(in_channels=3, out_channels=4, kernel=(3, 3)),),
                   steps=(Convolve(reads=(0,), layer=0), Pointwise(reads=(1,), function="relu")))
    model, x = spec.build(), spec.draw_input()
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from padrewrite.fuzzing.layers import Layer, LayerSpec, NormSpec, PadSpec, Shape, SymmetricSpec, TransposedSpec
from padrewrite.fuzzing.reshaping import Crop, Interpolate, Merge, Pad, PadTo, Pointwise, Shuffle
from padrewrite.fuzzing.steps import (
    AdaptivePool,
    Convolve,
    GlobalPool,
    Norm,
    PadLayer,
    Pool,
    Step,
    Symmetric,
    Transpose,
)
from padrewrite.fuzzing.text import Described

__all__ = [
    "AdaptivePool",
    "Convolve",
    "Crop",
    "GlobalPool",
    "Interpolate",
    "Layer",
    "LayerSpec",
    "Merge",
    "Net",
    "NetSpec",
    "Norm",
    "NormSpec",
    "Pad",
    "PadLayer",
    "PadSpec",
    "PadTo",
    "Pointwise",
    "Pool",
    "Shuffle",
    "Step",
    "Symmetric",
    "SymmetricSpec",
    "Transpose",
    "TransposedSpec",
]


@dataclass(frozen=True, repr=False)
class NetSpec(Described):
    """A small network: layers, some of which are called more than once, and the steps that use them."""

    shape: Shape
    """Channels and sizes of the input."""
    layers: tuple[Layer, ...]
    steps: tuple[Step, ...]
    batch: int = 1
    seed: int = 0
    """Of the weights and of the input."""
    drawn: tuple[str, ...] = ()
    """The kinds that it was drawn from, in order; says nothing that the steps do not."""

    @property
    def rank(self) -> int:
        return len(self.shape) - 1

    @property
    def calls(self) -> list[Convolve]:
        """The convolution calls in execution order, without transposed ones."""
        return [step for step in self.steps if isinstance(step, Convolve)]

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """Channels and sizes of every value.

        Raises:
            ValueError: a step cannot be computed; names it.
        """
        found = [self.shape]
        for index, step in enumerate(self.steps, 1):
            output = step.output([found[i] for i in step.reads], self.layers)
            if output is None:
                raise ValueError(f"value {index} cannot be computed: {step} of {[found[i] for i in step.reads]}")
            found.append(output)
        return tuple(found)

    @property
    def outputs(self) -> tuple[int, ...]:
        """The values that nothing reads."""
        read = {i for step in self.steps for i in step.reads}
        return tuple(i for i in range(len(self.steps) + 1) if i not in read)

    def build(self) -> Net:
        """The network in eval mode and float64. Leaves torch's random state alone."""
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(self.seed)
            return Net(self).double().eval()

    def draw_input(self, sizes: Sequence[int] | None = None) -> Tensor:
        """``(batch, channels, *sizes)``, normal random numbers in float64; by default of the sizes in ``shape``."""
        generator = torch.Generator().manual_seed(self.seed)
        shape = (self.batch, self.shape[0], *(self.shape[1:] if sizes is None else sizes))
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def __str__(self) -> str:
        """Python that makes it, a line for each layer and step."""
        layers = [f"        {layer},  # layers.{i}" for i, layer in enumerate(self.layers)]
        steps = [f"        {step},  # {i}: {self._shape_text(i)}" for i, step in enumerate(self.steps, 1)]
        rest = [f"    {name}={getattr(self, name)!r}," for name in ("batch", "seed", "drawn")]
        return "\n".join(
            [
                *("NetSpec(", f"    shape={self.shape!r},"),
                *("    layers=(", *layers, "    ),"),
                *("    steps=(", *steps, "    ),"),
                *(*rest, ")"),
            ]
        )

    def _shape_text(self, value: int) -> str:
        try:
            return "x".join(map(str, self.shapes[value]))
        except ValueError:
            return "?"


class Net(nn.Module):
    """The module of a `NetSpec`."""

    def __init__(self, spec: NetSpec) -> None:
        super().__init__()
        self.spec = spec
        self.layers = nn.ModuleList(layer.module() for layer in spec.layers)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.run(x, self.convolve)

    def run(self, x: Tensor, conv: Callable[[Convolve, Tensor], Tensor]) -> tuple[Tensor, ...]:
        """Every value that nothing reads; ``conv`` makes the convolutions, their explicit pads included."""
        values = [x]
        for step in self.spec.steps:
            read = [values[i] for i in step.reads]
            values.append(conv(step, read[0]) if isinstance(step, Convolve) else step.run(read, self))
        return tuple(values[i] for i in self.spec.outputs)

    def convolve(self, step: Convolve, x: Tensor) -> Tensor:
        """A convolution as the network makes it."""
        return step.run([x], self)
