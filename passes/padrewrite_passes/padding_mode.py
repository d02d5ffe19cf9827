"""Padding mode: another way to fill the border, on all axes or on some.

    out[i] = sum_t w[t] x[m(i*s + d*t - p)] + b          m = the mode's index map (or a zero outside [0, N))

Equal to the original wherever no window touches padding. reflect needs padding < N and circular padding <= N.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from padrewrite.contracts import Contract
from padrewrite.graph import Graph
from padrewrite.ops.conv import Conv
from padrewrite.ops.pad import MODES
from padrewrite.rewriting import Check, Match, Pass


@dataclass(frozen=True)
class PaddingMode(Pass):
    """The padding of chosen axes is filled in another mode."""

    name: ClassVar[str] = "padding-mode"
    contract: ClassVar[str] = "interior"
    codes: ClassVar[Mapping[str, str]] = {
        "transposed": "a transposed convolution has no window over a padded input",
        "partial": "it is partial already; partial padding and a mode exclude each other on an axis",
        "no-such-axis": "the option axes names an axis that this convolution does not have",
        "unpadded": "the chosen axes have no padding",
        "already-in-mode": "the chosen axes are padded in this mode already",
        "cropping": "negative padding crops the input instead of padding it",
        "too-small": "the padding is wider than the mode can fill at the recorded input size",
    }

    mode: str = "reflect"
    """reflect, replicate, circular or zeros."""
    axes: tuple[int, ...] | None = None
    """Spatial axes counted from the end (-1 is the last), or None for all."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode={self.mode!r} is not one of {', '.join(MODES)}")
        if self.axes is not None:
            axes = (self.axes,) if isinstance(self.axes, int) else tuple(self.axes)
            if not axes or any(not isinstance(a, int) or a >= 0 for a in axes):
                raise ValueError(
                    f"axes={self.axes!r}: count spatial axes from the end, as in [-1] or [-2,-1]"
                )
            object.__setattr__(self, "axes", axes)

    def match(self, graph: Graph) -> Iterator[Match]:
        return Match.each(graph.convs())

    def legality(self, match: Match) -> Iterator[Check]:
        yield Check("transposed", isinstance(match.op, Conv), "a transposed convolution pads no input")
        op = match.conv
        rank = op.window.rank
        missing = [a for a in self.axes or () if a < -rank]
        yield Check("no-such-axis", not missing, f"axes {missing} of a {rank}-D convolution")
        axes = self._padded(op)
        yield Check.keep("unpadded", bool(axes), "the chosen axes have no padding")
        done = all(op.modes[a] == self.mode and not self._was_partial(op, a) for a in axes)
        yield Check.keep("already-in-mode", not done, f"it is padded in mode {self.mode} already")
        yield Check("partial", op.partial is None, "it is partial; revert it first")
        yield Check("cropping", min(map(min, op.padding)) >= 0, f"padding {op.padding} crops")
        small = [a for a in axes if not self._fits(match, a)]
        yield Check(
            "too-small", not small, f"{self.mode} cannot fill {op.padding} around {match.site.input_shape}"
        )

    def rewrite(self, match: Match) -> tuple[Conv, ...]:
        op, axes = match.conv, self._padded(match.conv)
        return (replace(op, modes=tuple(self.mode if a in axes else m for a, m in enumerate(op.modes))),)

    def promise(self, match: Match) -> Contract:
        return Contract.interior(match.conv)

    def _padded(self, op: Conv) -> list[int]:
        chosen = {a % op.window.rank for a in self.axes} if self.axes else set(range(op.window.rank))
        return [a for a in op.padded_axes if a in chosen]

    def _was_partial(self, op: Conv, axis: int) -> bool:
        return op.partial is not None and op.modes[axis] == "zeros"

    def _fits(self, match: Match, axis: int) -> bool:
        shape, op = match.site.input_shape, match.conv
        if shape is None or self.mode in ("zeros", "replicate"):
            return True
        size, widest = shape[len(shape) - op.window.rank + axis], max(op.padding[axis])
        return widest < size if self.mode == "reflect" else widest <= size
