"""What a random network has in it, read off its specification: one name for each thing that must not be starved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from padrewrite.fuzzing.networks import (
    AdaptivePool,
    Convolve,
    Crop,
    GlobalPool,
    Interpolate,
    LayerSpec,
    Merge,
    NetSpec,
    Pad,
    PadLayer,
    PadTo,
    Pointwise,
    Pool,
    Shuffle,
    Step,
    Symmetric,
    SymmetricSpec,
    Transpose,
    TransposedSpec,
)


def features(spec: NetSpec) -> set[str]:
    """Names of everything that occurs in a network."""
    found = {f"rank {spec.rank}", f"batch {spec.batch}", *(f"drawn {kind}" for kind in spec.drawn)}
    found |= {"several outputs"} if len(spec.outputs) > 1 else set()
    calls = [step.layer for step in spec.calls]
    found |= {"shared layer"} if len(calls) > len(set(calls)) else set()
    for step in spec.steps:
        found |= set(_of_step(spec, step))
    return found


def _of_step(spec: NetSpec, step: Step) -> Iterator[str]:
    name = type(step).__name__
    yield name
    for kind, tell in _TELLERS:
        if isinstance(step, kind):
            yield from (f"{name} {word}" for word in tell(spec, step))


def _window(layer: LayerSpec | TransposedSpec | SymmetricSpec) -> Iterator[str]:
    yield from ("odd" if k % 2 else "even" for k in layer.kernel if k > 1)
    yield from ("strided" for s in layer.stride if s > 1)
    yield from ("dilated" for d, k in zip(layer.dilation, layer.kernel) if d > 1 and k > 1)
    if layer.groups > 1:
        yield "depthwise" if layer.groups == layer.in_channels else "grouped"
    if layer.functional:
        yield "functional"
    if not layer.bias:
        yield "without bias"
    if len(set(layer.kernel)) > 1:
        yield "of unequal sides"


def _convolve(spec: NetSpec, step: Any) -> Iterator[str]:
    layer: Any = spec.layers[step.layer]
    yield from _window(layer)
    if step.explicit:
        yield "behind a pad"
    if any(lo != hi for lo, hi in step.explicit):
        yield "unevenly padded"
    if isinstance(layer.padding, str):
        yield layer.padding
    if any(map(any, layer.pads)):
        yield layer.mode
    if layer.padding == "same" and layer.mode != "zeros":
        yield "same in another mode"


def _transpose(spec: NetSpec, step: Any) -> Iterator[str]:
    layer: Any = spec.layers[step.layer]
    yield from _window(layer)
    yield from ("padded" for p in layer.padding if p)
    yield from ("with output padding" for p in layer.output_padding if p)


def _pool(spec: NetSpec, step: Any) -> Iterator[str]:
    yield step.how
    yield from ("padded" for p in step.padding if p)
    yield from ("dilated" for d, k in zip(step.dilation, step.kernel) if d > 1 and k > 1)
    yield from ("overlapping" for s, k in zip(step.stride, step.kernel) if s < k)
    if step.ceil_mode:
        yield "ceil mode"
    if not step.count_include_pad:
        yield "without counting padding"


def _pad_layer(spec: NetSpec, step: Any) -> Iterator[str]:
    layer: Any = spec.layers[step.layer]
    yield layer.mode
    yield from ("of ones" for _ in range(bool(layer.value)))


def _pad(spec: NetSpec, step: Any) -> Iterator[str]:
    yield step.mode
    sides = [side for pair in step.amounts for side in pair]
    if min(sides) < 0:
        yield "negative"
    if step.value:
        yield "of ones"
    if len(step.amounts) < spec.rank:
        yield "of some axes"


def _pad_to(spec: NetSpec, step: Any) -> Iterator[str]:
    before = spec.shapes[step.reads[0]]
    yield "nothing missing" if step.output([before], ()) == before else "something missing"


def _crop(spec: NetSpec, step: Any) -> Iterator[str]:
    for start, stop, stride in step.slices:
        yield "plain" if (start, stop, stride) == (None, None, 1) else "cut"
        if stop is not None:
            yield "from the end" if stop < 0 else "to a number"
        if stride > 1:
            yield "with a step"


def _interpolate(spec: NetSpec, step: Any) -> Iterator[str]:
    yield step.mode
    yield "to another's size" if len(step.reads) == 2 else "to a size" if step.factors is None else "by factors"
    if step.align_corners is not None:
        yield f"align_corners={step.align_corners}"
    if step.recompute:
        yield "recomputed"
    if step.factors and len(set(step.factors)) > 1:
        yield "by unequal factors"


def _merge(spec: NetSpec, step: Any) -> Iterator[str]:
    yield step.how
    shapes = [spec.shapes[i] for i in step.reads]
    if step.how != "cat" and len({shape[1:] for shape in shapes}) > 1:
        yield "spread over positions"
    if len(shapes) > 2:
        yield "of many"


def _symmetric(spec: NetSpec, step: Any) -> Iterator[str]:
    layer: Any = spec.layers[step.layer]
    yield from _window(layer)
    yield layer.order
    if layer.scale is not None:
        yield "scaled"
    if layer.in_channels // layer.groups < 2 ** sum(k % 2 == 0 for k in layer.kernel):
        yield "of few channels"


_TELLERS: list[tuple[type[Step], Callable[[NetSpec, Any], Iterator[str]]]] = [
    (Convolve, _convolve),
    (Transpose, _transpose),
    (Symmetric, _symmetric),
    (Pool, _pool),
    (AdaptivePool, lambda spec, step: iter([step.how])),
    (GlobalPool, lambda spec, step: iter([step.how])),
    (PadLayer, _pad_layer),
    (Pad, _pad),
    (Crop, _crop),
    (PadTo, _pad_to),
    (Interpolate, _interpolate),
    (Shuffle, lambda spec, step: iter(["inverse" if step.inverse else "forward"])),
    (Pointwise, lambda spec, step: iter([step.function])),
    (Merge, _merge),
]
