"""The generator: valid by construction, rich, and the same for the same choices in every process."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from padrewrite.fuzzing import networks as names
from padrewrite.fuzzing.choices import Choices, Drawn, Seeded
from padrewrite.fuzzing.drawing import KINDS, draw_network, networks, seeded_network
from padrewrite.fuzzing.networks import (
    Convolve,
    GlobalPool,
    Interpolate,
    NetSpec,
    Norm,
    Pointwise,
    Shuffle,
    Symmetric,
    Transpose,
)

from .features import features

SPECS = [seeded_network(seed) for seed in range(500)]

WINDOWS = ("odd", "even", "strided", "dilated", "grouped", "depthwise", "functional", "without bias")
FEATURES = {
    *("rank 1", "rank 2", "rank 3", "batch 1", "batch 2", "several outputs", "shared layer"),
    *(f"drawn {kind}" for kind in KINDS),
    *(f"Convolve {word}" for word in WINDOWS),
    *("Convolve of unequal sides", "Convolve behind a pad", "Convolve unevenly padded", "Convolve same"),
    *("Convolve valid", "Convolve zeros", "Convolve reflect", "Convolve replicate", "Convolve circular"),
    *("Convolve same in another mode",),
    *(f"Transpose {word}" for word in WINDOWS),
    *("Transpose padded", "Transpose with output padding"),
    *(f"Symmetric {word}" for word in WINDOWS if word != "functional"),
    *("Symmetric balanced", "Symmetric raster", "Symmetric scaled", "Symmetric of few channels"),
    *("Pool max", "Pool avg", "Pool padded", "Pool dilated", "Pool overlapping", "Pool ceil mode"),
    *("Pool without counting padding", "AdaptivePool max", "AdaptivePool avg"),
    *("GlobalPool mean", "GlobalPool amax", "GlobalPool sum"),
    *("Pad constant", "Pad reflect", "Pad replicate", "Pad circular", "Pad negative", "Pad of ones"),
    *("Pad of some axes", "PadLayer constant", "PadLayer reflect", "PadLayer replicate", "PadLayer circular"),
    *("PadTo nothing missing", "PadTo something missing"),
    *("Crop from the end", "Crop to a number", "Crop with a step"),
    *("Interpolate nearest", "Interpolate nearest-exact", "Interpolate linear", "Interpolate bilinear"),
    *("Interpolate trilinear", "Interpolate bicubic", "Interpolate area", "Interpolate to another's size"),
    *("Interpolate to a size", "Interpolate by factors", "Interpolate by unequal factors"),
    *("Interpolate align_corners=True", "Interpolate align_corners=False", "Interpolate recomputed"),
    *("Shuffle forward", "Shuffle inverse", "Norm"),
    *("Pointwise relu", "Pointwise relu_", "Pointwise sigmoid", "Pointwise gelu", "Pointwise abs"),
    *("Merge add", "Merge sub", "Merge mul", "Merge maximum", "Merge cat", "Merge of many"),
    *("Merge spread over positions",),
}
"""What a network may have in it. Names of `features.features`."""


def assert_runs_as_said(spec: NetSpec) -> None:
    """Every value has the shape that the specification's own arithmetic gives, and is a number."""
    with torch.no_grad():
        outputs = spec.build()(spec.draw_input())
    shapes = [spec.shapes[i] for i in spec.outputs]
    assert [tuple(o.shape) for o in outputs] == [(spec.batch, *shape) for shape in shapes], spec
    assert all(o.isfinite().all() for o in outputs), spec


def test_every_network_runs_and_has_the_shapes_it_says() -> None:
    for spec in SPECS:
        assert_runs_as_said(spec)


def test_every_network_runs_at_the_other_sizes_that_it_says_it_takes() -> None:
    taken = 0
    for spec in SPECS:
        other = replace(spec, shape=(spec.shape[0], *(n + 2 + axis for axis, n in enumerate(spec.shape[1:]))))
        try:
            _ = other.shapes
        except ValueError:
            continue
        taken += 1
        assert_runs_as_said(other)
    assert taken > 250


def test_nothing_is_starved() -> None:
    """At least one network in a hundred has each thing, and one in twenty each kind."""
    counts = Counter(feature for spec in SPECS for feature in features(spec))
    rare = {name: counts[name] for name in FEATURES if counts[name] < len(SPECS) / 100}
    assert not rare
    kinds = {kind: counts[f"drawn {kind}"] for kind in KINDS if counts[f"drawn {kind}"] < len(SPECS) / 20}
    assert not kinds


def test_every_network_has_a_convolution_and_several_have_many() -> None:
    counts = [sum(isinstance(s, (Convolve, Transpose, Symmetric)) for s in spec.steps) for spec in SPECS]
    assert min(counts) == 1
    assert sum(count >= 4 for count in counts) > len(SPECS) / 4


def test_values_stay_small() -> None:
    for spec in SPECS:
        assert max(torch.Size(shape).numel() for shape in spec.shapes) < 40_000, spec


def test_a_specification_prints_as_the_python_that_makes_it() -> None:
    for spec in SPECS[:100]:
        for text in (repr(spec), str(spec)):
            assert eval(text, {name: getattr(names, name) for name in names.__all__}) == spec
        assert pickle.loads(pickle.dumps(spec)) == spec
    assert str(SPECS[0]).count("\n") == len(SPECS[0].layers) + len(SPECS[0].steps) + 9


def test_a_specification_that_cannot_run_says_where() -> None:
    spec = NetSpec((3, 8), (), (Pointwise((0,), "relu"), Shuffle((1,), 2, inverse=True)))
    assert replace(spec, shape=(3, 8, 8)).shapes[-1] == (12, 4, 4)
    with pytest.raises(ValueError, match=r"value 2 cannot be computed: Shuffle.*7"):
        _ = replace(spec, shape=(3, 7, 8)).shapes


def test_building_is_repeatable_and_leaves_the_random_state_alone() -> None:
    spec = next(s for s in SPECS if any(isinstance(step, Norm) for step in s.steps))
    before = torch.get_rng_state()
    first, second = spec.build(), spec.build()
    x = spec.draw_input()
    assert torch.equal(torch.get_rng_state(), before)
    assert not first.training
    assert {p.dtype for p in first.parameters()} == {x.dtype} == {torch.float64}
    assert all(torch.equal(a, b) for a, b in zip(first(x), second(x), strict=True))
    assert torch.equal(x, spec.draw_input())


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_linear_networks_are_affine(rank: int) -> None:
    for seed in range(40):
        spec = seeded_network(seed, ranks=(rank,), linear_only=True)
        model = spec.build()
        a, b = spec.draw_input(), replace(spec, seed=spec.seed + 1).draw_input()
        with torch.no_grad():
            mixed, ones, others = model(3 * a - 2 * b), model(a), model(b)
        for got, one, other in zip(mixed, ones, others, strict=True):
            torch.testing.assert_close(got, 3 * one - 2 * other, rtol=1e-10, atol=1e-9)


def test_options_choose_what_is_drawn() -> None:
    for seed in range(60):
        assert seeded_network(seed, ranks=(3,)).rank == 3
        plain = seeded_network(seed, padded=False)
        assert "pad" not in plain.drawn
        for call in plain.calls:
            layer: Any = plain.layers[call.layer]
            assert layer.mode == "zeros"
            assert not call.explicit
            assert not isinstance(layer.padding, str)
        assert set(seeded_network(seed, kinds=("pointwise", "skip")).drawn) <= {"pointwise", "skip", "conv"}
        assert len(seeded_network(seed, parts=(1, 1)).drawn) <= 2


def digest(count: int) -> str:
    return hashlib.sha256("".join(str(seeded_network(seed)) for seed in range(count)).encode()).hexdigest()


ELSEWHERE = """
import hashlib, sys
from padrewrite.cli import fuzzing
from padrewrite.fuzzing.drawing import seeded_network
print(hashlib.sha256("".join(str(seeded_network(seed)) for seed in range(50)).encode()).hexdigest())
print("hypothesis" in sys.modules)
"""


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_a_seed_is_the_same_network_in_every_process_and_needs_no_hypothesis(hash_seed: str) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run([sys.executable, "-c", ELSEWHERE], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == [digest(50), "False"], done.stderr


class Written:
    """Choices that are made by another, and written down."""

    def __init__(self, source: Choices) -> None:
        self.source = source
        self.script: list[int] = []

    def integer(self, lo: int, hi: int) -> int:
        self.script.append(self.source.integer(lo, hi))
        return self.script[-1]

    def pick(self, options: Sequence[Any]) -> Any:
        return options[self.integer(0, len(options) - 1)]


class Read:
    """Choices by a script."""

    def __init__(self, script: list[int]) -> None:
        self.script = iter(script)

    def integer(self, lo: int, hi: int) -> int:
        value = next(self.script)
        assert lo <= value <= hi
        return value

    def pick(self, options: Sequence[Any]) -> Any:
        return options[self.integer(0, len(options) - 1)]


@given(st.data())
def test_both_sources_draw_from_one_description(data: st.DataObject) -> None:
    """What hypothesis draws, and what a seed draws, is the network of the same choices made by anyone."""
    for source in (Drawn(data.draw), Seeded(data.draw(st.integers(0, 10**6)))):
        written = Written(source)
        spec = draw_network(written)
        assert draw_network(Read(written.script)) == spec


def test_a_seed_is_the_same_network_twice() -> None:
    assert [seeded_network(seed) for seed in range(100)] == SPECS[:100]
    assert len(set(SPECS)) == len(SPECS)


@given(networks())
def test_hypothesis_draws_networks_that_run(spec: NetSpec) -> None:
    assert_runs_as_said(spec)


@given(networks(ranks=(2,), kinds=("interpolate", "global_pool"), linear_only=True, parts=(1, 3)))
def test_the_strategy_takes_the_same_options(spec: NetSpec) -> None:
    assert spec.rank == 2
    assert set(spec.drawn) <= {"interpolate", "global_pool", "conv"}
    assert all(not (isinstance(step, GlobalPool) and step.how == "amax") for step in spec.steps)
    assert any(isinstance(step, (Convolve, Interpolate)) for step in spec.steps)
