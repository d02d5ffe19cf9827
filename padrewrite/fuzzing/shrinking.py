"""Making a failing network small: whatever can go while the same check still fails, goes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, replace
from typing import Any

from padrewrite.fuzzing.layers import Layer, LayerSpec, NormSpec, PadSpec
from padrewrite.fuzzing.networks import Convolve, NetSpec, Norm, Step, Symmetric, Transpose
from padrewrite.fuzzing.results import Result


def shrink(failing: Result, check: Callable[[NetSpec], Result], tries: int = 200) -> Result:
    """The smallest network found, by greedy steps, on which a check fails with the same message, numbers aside.

    Args:
        check: as ``check_spec``; called at most ``tries`` times.
    """
    wanted = _signatures(failing)
    best = failing
    left = tries
    progress = True
    while progress and left:
        progress = False
        for candidate in _smaller(best.spec):
            if not left:
                break
            left -= 1
            found = check(candidate)
            if wanted & _signatures(found):
                best, progress = found, True
                break
    return best


def _signatures(result: Result) -> set[tuple[str, str]]:
    return {(o.check, re.sub(r"[\d.]+", "", o.note.partition("\n")[0])) for o in result.failures}


def _smaller(spec: NetSpec) -> Iterator[NetSpec]:
    """Valid networks that are simpler in one respect, the largest cuts first."""
    for candidate in _candidates(replace(spec, drawn=())):
        try:
            tidy = _without_unused_layers(_fitted(candidate))
            valid = bool(tidy.shapes)
        except (ValueError, IndexError):
            continue
        if valid and tidy != spec:
            yield tidy


def _candidates(spec: NetSpec) -> Iterator[NetSpec]:
    count = len(spec.steps)
    yield from (_ancestors_of(spec, value) for value in range(1, count + 1))
    yield from (_bypassed(spec, value, read) for value in range(count, 0, -1) for read in spec.steps[value - 1].reads)
    if spec.batch > 1:
        yield replace(spec, batch=1)
    for axis, n in enumerate(spec.shape):
        least = 2 if axis and n > 1 else 1  # an axis of one pixel is a case of its own: it spreads
        for size in sorted({max(n // 2, least), max(n - 1, least)} - {n}):
            yield replace(spec, shape=(*spec.shape[:axis], size, *spec.shape[axis + 1 :]))
    for index, layer in enumerate(spec.layers):
        yield from (replace(spec, layers=_with(spec.layers, index, new)) for new in _simpler(layer))
    for index, step in enumerate(spec.steps):
        yield from (replace(spec, steps=_with(spec.steps, index, new)) for new in _simpler(step))


def _with(items: tuple[Any, ...], index: int, new: Any) -> tuple[Any, ...]:
    return (*items[:index], new, *items[index + 1 :])


def _simpler(item: Any) -> Iterator[Any]:
    """A layer or step with one option at its default, or with a smaller kernel."""
    for field in fields(item):
        if field.default is not MISSING and getattr(item, field.name) != field.default:
            yield replace(item, **{field.name: field.default})
    if isinstance(item, LayerSpec):
        if item.out_channels > 1 and item.groups == 1:
            yield replace(item, out_channels=1)
        for axis, k in enumerate(item.kernel):
            if k > 1:
                yield replace(item, kernel=_with(item.kernel, axis, k - 1))


def _ancestors_of(spec: NetSpec, value: int) -> NetSpec:
    """The network that ends with ``value``."""
    needed = {value}
    for index in range(value, 0, -1):
        if index in needed:
            needed |= set(spec.steps[index - 1].reads)
    return _kept(spec, sorted(needed - {0}), {})


def _bypassed(spec: NetSpec, value: int, instead: int) -> NetSpec:
    """Without the step that makes ``value``: what read it reads ``instead``."""
    return _kept(spec, [i for i in range(1, len(spec.steps) + 1) if i != value], {value: instead})


def _kept(spec: NetSpec, values: list[int], moved: dict[int, int]) -> NetSpec:
    """The steps that make ``values``, renumbered."""
    number = {0: 0} | {old: new for new, old in enumerate(values, 1)}
    steps: list[Step] = []
    for value in values:
        step = spec.steps[value - 1]
        steps.append(replace(step, reads=tuple(number[moved.get(i, i)] for i in step.reads)))
    return replace(spec, steps=tuple(steps))


def _fitted(spec: NetSpec) -> NetSpec:
    """With layers that take as many channels as they are now given."""
    shapes, layers = [spec.shape], list(spec.layers)
    for step in spec.steps:
        given = [shapes[i] for i in step.reads]
        if isinstance(step, (Convolve, Transpose, Symmetric, Norm)):
            layers[step.layer] = _taking(layers[step.layer], given[0][0])
        output = step.output(given, layers)
        if output is None:
            raise ValueError(f"{step} of {given}")
        shapes.append(output)
    return replace(spec, layers=tuple(layers))


def _taking(layer: Layer, channels: int) -> Layer:
    if isinstance(layer, NormSpec):
        return replace(layer, channels=channels)
    if isinstance(layer, PadSpec) or layer.in_channels == channels:
        return layer
    return replace(layer, in_channels=channels, groups=1)


def _without_unused_layers(spec: NetSpec) -> NetSpec:
    used = sorted({step.layer for step in spec.steps if hasattr(step, "layer")})  # pyright: ignore
    number = {old: new for new, old in enumerate(used)}
    steps = tuple(
        replace(step, layer=number[step.layer]) if hasattr(step, "layer") else step  # pyright: ignore
        for step in spec.steps
    )
    return replace(spec, layers=tuple(spec.layers[i] for i in used), steps=steps)
