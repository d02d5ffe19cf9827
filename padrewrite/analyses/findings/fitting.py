"""The finding about sizes at which a model does not run."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import lcm

from padrewrite.analyses.analysis import Finding
from padrewrite.analyses.findings.codes import dims_text, finding, in_order, input_size, modulo_text, names, runs_text
from padrewrite.analyses.fixed_sizes import infers_samples
from padrewrite.analyses.layout import Origin
from padrewrite.analyses.requirements import Requirement, few_sizes
from padrewrite.analyses.scene import Scene, place
from padrewrite.analyses.size_forms import MOST_RESIDUES


def size_requirements(scene: Scene) -> Iterator[Finding]:
    """Calls that take some input sizes only, of those that take the recorded path."""
    by_axis: dict[Origin, list[Requirement]] = {}
    for need in scene.requirements:
        by_axis.setdefault(need.axis, []).append(need)
    alike: dict[tuple[_GoodSizes, tuple[str, ...]], list[Origin]] = {}
    for axis, needs in in_order(by_axis):
        good = _good_sizes(axis, needs, scene)
        if good is not None:
            alike.setdefault((good, tuple(dict.fromkeys(place(need.node, scene) for need in needs))), []).append(axis)
    for (good, sites), axes in alike.items():
        what = "read the size that it is made for" if good.sizes is not None else "join equal sizes"
        message = f"the size along {dims_text(axes)} {good}, for {names(sites)} to {what}"
        message += ", or samples mix" * good.mixes
        numbers = {"inputs": [[a.input, a.dim] for a in axes], "period": good.period, "residues": list(good.residues)}
        numbers["sizes"] = None if good.sizes is None else list(good.sizes)
        yield finding("size-requirement", "(model)", message, numbers, sites=sites)


@dataclass(frozen=True)
class _GoodSizes:
    """The sizes of an input dimension at which a model runs."""

    period: int | None
    residues: tuple[int, ...]
    sizes: tuple[int, ...] | None = None
    """All of them, where they are a few; they have no period then."""
    mixes: bool = False
    """At others it may run, too, and makes samples of parts of samples."""

    def __str__(self) -> str:
        if self.sizes is not None and len(self.sizes) > 1:
            return f"needs to be {runs_text(self.sizes)}"
        return f"needs {_residues(self.residues, self.period)}" if self.residues and self.period else _ONLY


_ONLY = "can only be the recorded one"


def _good_sizes(axis: Origin, needs: Sequence[Requirement], scene: Scene) -> _GoodSizes | None:
    """None: all of them, or it is not known."""
    few = few_sizes(needs)
    if few is not None:
        good = tuple(n for n in few if scene.paths.takes(axis, n))
        size = input_size(scene, axis)
        running = _running(axis, size, good, scene) if size in good else ()
        return _GoodSizes(None, (), running, _mixes(needs, scene)) if running else None
    on_path, taken = scene.paths.residues(axis)
    period = lcm(on_path, *(need.period for need in needs))
    if period > MOST_RESIDUES:
        return None
    asked = [r for r in range(period) if r % on_path in taken]
    good = tuple(r for r in asked if all(need.met(r) for need in needs))
    return _GoodSizes(period, good) if len(good) < len(asked) else None


def _mixes(needs: Sequence[Requirement], scene: Scene) -> bool:
    """Whether all that bounds the sizes is views that infer the number of samples, or behind one."""
    views = {need.node for need in needs if infers_samples(need.node)}
    return bool(views) and all(views & scene.layout.before([n.node]) for n in needs if n.only is not None)


def _running(axis: Origin, size: int, among: tuple[int, ...], scene: Scene) -> tuple[int, ...]:
    """Those at which the model runs: all between two of them, as it runs at the recorded one."""

    def fails(n: int) -> bool:
        return scene.runs({axis: n}) is False

    below, above = [n for n in among if n < size], [n for n in among if n > size]
    if below and fails(below[0]):
        below = below[bisect_left(below, True, 1, key=lambda n: not fails(n)) :]
    if above and fails(above[-1]):
        above = above[: bisect_left(above, True, 0, len(above) - 1, key=fails)]
    return (*below, size, *above)


def _residues(good: Sequence[int], period: int) -> str:
    return f"to be a multiple of {period}" if list(good) == [0] else f"to be {modulo_text(good, period)}"
