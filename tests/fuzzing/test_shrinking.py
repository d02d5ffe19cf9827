"""A failing network is made small, and goes on failing in the same check."""

from __future__ import annotations

from collections.abc import Callable

from padrewrite.fuzzing.drawing import seeded_network
from padrewrite.fuzzing.networks import Convolve, Interpolate, LayerSpec, NetSpec, Step
from padrewrite.fuzzing.results import Outcome, Result
from padrewrite.fuzzing.shrinking import shrink


def failing_if(condition: Callable[[NetSpec], bool], seen: list[NetSpec]) -> Callable[[NetSpec], Result]:
    """A check that fails by ``condition`` on the specification alone."""

    def check(spec: NetSpec) -> Result:
        seen.append(spec)
        return Result(spec, (Outcome("thing", "failed" if condition(spec) else "held"),))

    return check


def has(spec: NetSpec, kind: type[Step]) -> bool:
    return any(isinstance(step, kind) for step in spec.steps)


def dilated(spec: NetSpec) -> bool:
    layers = [spec.layers[call.layer] for call in spec.calls]
    return any(isinstance(layer, LayerSpec) and max(layer.dilation) > 1 for layer in layers)


def test_only_what_matters_is_left() -> None:
    shrunk = 0
    for seed in range(200):
        spec = seeded_network(seed)
        if not (has(spec, Interpolate) and dilated(spec)):
            continue
        seen: list[NetSpec] = []
        check = failing_if(lambda s: has(s, Interpolate) and dilated(s), seen)
        small = shrink(check(spec), check, tries=2000).spec
        assert sorted(type(step).__name__ for step in small.steps) == ["Convolve", "Interpolate"], small
        assert len(small.layers) == 1
        assert small.batch == 1
        assert small.seed == spec.seed
        small.build()(small.draw_input())
        shrunk += 1
    assert shrunk > 20


def test_every_candidate_is_a_network_that_runs() -> None:
    spec = next(s for s in map(seeded_network, range(100)) if len(s.steps) > 10)
    seen: list[NetSpec] = []
    check = failing_if(lambda s: has(s, Convolve), seen)
    shrink(check(spec), check)
    assert len(seen) > 10
    for candidate in seen:
        candidate.build()(candidate.draw_input())


def test_another_failure_does_not_count() -> None:
    spec = seeded_network(3)

    def check(candidate: NetSpec) -> Result:
        return Result(candidate, (Outcome("thing" if candidate == spec else "another", "failed"),))

    assert shrink(check(spec), check).spec == spec


def test_the_number_of_tries_is_kept() -> None:
    seen: list[NetSpec] = []
    check = failing_if(lambda s: True, seen)
    shrink(check(seeded_network(8)), check, tries=5)
    assert len(seen) == 1 + 5
