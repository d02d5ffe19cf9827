"""Records of every tensor: their names, and their sizes against what the model does at other sizes."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from strategies import NetSpec, nets
from torch import Tensor, nn

import padrewrite as pr
from padrewrite.analyses.analysis import Analysis, NodeRecord
from padrewrite.errors import InputsError
from padrewrite.fuzzing.drawing import KINDS


class Shared(nn.Module):
    """A block that is called twice, with functions of all kinds in it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool = nn.Conv2d(3, 3, 3, padding=1), nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(F.pad(self.conv(x), (1, 1, 1, 1)))
        return self.pool(torch.relu(F.conv2d(x, torch.ones(3, 3, 3, 3))))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block, self.head = Shared(), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        low = self.block(self.block(x))
        large = F.interpolate(low, x.shape[2:]) + x
        return {"large": large, "classes": self.head(low.mean((2, 3))), "low": F.max_pool2d(low, 3, 1)}


def analysis() -> Analysis:
    return pr.analyze(Net().eval(), example_inputs=torch.rand(1, 3, 17, 24))


def test_names_are_those_of_sites_and_numbered_like_them() -> None:
    made = analysis()
    assert list(made.nodes) == [
        "#input.0",
        *("block.conv", "block#pad.0", "block#relu.0", "block#conv2d.0", "block#relu.1", "block.pool"),
        *("block.conv@1", "block#pad.1", "block#relu.2", "block@1#conv2d.0", "block#relu.3", "block.pool@1"),
        *("#interpolate.0", "#add.0", "#max_pool2d.0"),
    ]
    assert set(made.sites) < set(made.nodes)
    assert all(record.id == name for name, record in made.nodes.items())
    pooled = made.nodes["block.pool"]
    assert (pooled.call, pooled.shape, pooled.dims, pooled.inputs) == (
        "max_pool2d",
        (1, 3, 8, 12),
        (2, 3),
        ((0, 2), (0, 3)),
    )
    assert made.nodes["#add.0"].source is not None
    assert "test_nodes.py" in made.nodes["#add.0"].source


def test_convolutions_say_the_same_in_both_records() -> None:
    made = analysis()
    for name, site in made.sites.items():
        node = made.nodes[name]
        assert (node.size, node.phase, node.receptive_field) == (site.size, site.phase, site.receptive_field)
        assert node.shape[2:] == site.output_size


def test_outputs_are_all_told_and_those_without_positions_say_so() -> None:
    made = analysis()
    large, classes, low = made.outputs
    assert (large, low) == (made.nodes["#add.0"], made.nodes["#max_pool2d.0"])
    assert (classes.shape, classes.dims, classes.unchanged) == ((1, 2), (), None)
    assert large.unchanged is True
    assert low.unchanged is False
    assert [str(form) for form in low.size] == ["floor((H - 8)/4)"] * 2


def test_an_analysis_is_a_value() -> None:
    made = analysis()
    copied = pickle.loads(pickle.dumps(made))
    assert copied == made == analysis()
    assert copied.to_json() == made.to_json()


def test_of_a_module_tree_nothing_is_known() -> None:
    made = pr.analyze(Net())
    assert (dict(made.nodes), made.outputs) == ({}, ())


# Sizes


def shapes_at(model: nn.Module, x: Tensor) -> dict[str, tuple[int, ...]] | None:
    """What the same model's tensors are like at another size; None if it does not run there."""
    try:
        return {name: record.shape for name, record in pr.analyze(model, example_inputs=x).nodes.items()}
    except InputsError:
        return None


@settings(max_examples=max(8, settings.default.max_examples // 10))
@given(nets(ranks=(1, 2), kinds=tuple(KINDS), parts=(2, 5)))
def test_sizes_are_those_of_recordings_at_other_sizes(spec: NetSpec) -> None:
    model, x = spec.build(), spec.draw_input()
    made = pr.analyze(model, example_inputs=x)
    for more in (1, 2, 3, 7):
        sizes = [n + more * (1 + a) for a, n in enumerate(x.shape[2:])]
        shapes = shapes_at(model, torch.rand(*x.shape[:2], *sizes, dtype=x.dtype))
        if shapes is None:
            continue
        assert set(shapes) == set(made.nodes)
        compared = 0
        for name, record in made.nodes.items():
            for d, (_, dim), form in zip(record.dims, record.inputs, record.size):
                if form is not None and form.since is not None and form.since <= sizes[dim - 2]:
                    assert form.at(sizes[dim - 2]) == shapes[name][d], (name, sizes, str(form), form.since)
                    compared += 1
        assert compared > 0


def upsampled(x: Tensor) -> Tensor:
    return F.interpolate(F.max_pool2d(x, 2, ceil_mode=True), scale_factor=2)


def cut(x: Tensor) -> Tensor:
    return F.pad(x[:, :, 4:-3], (0, 0, 3, 4))


def skipped(x: Tensor) -> Tensor:
    return F.interpolate(F.max_pool2d(x, 3, 2), x.shape[2:]) + x


def rows(x: Tensor) -> Tensor:
    return torch.cat([x[:, :, 0::2], x[:, :, 1::2]], 2)


OUTPUTS: dict[str, tuple[Callable[[Tensor], Tensor], bool, int]] = {
    "plain": (lambda x: x, True, 1),
    "to the input's size": (skipped, True, 2),
    "to even sizes": (upsampled, False, 1),
    "cut and filled again": (cut, True, 7),
    "cut into rows": (rows, True, 2),
    "cropped": (lambda x: x[:, :, 1:], False, 1),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_unchanged_is_decided_for_all_sizes(name: str) -> None:
    """Against running the model at every size from 1 on; where it refuses one, nothing is said of it."""
    run, unchanged, since = OUTPUTS[name]

    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return run(F.conv2d(x, torch.ones(1, 1, 1, 1)))

    (record,) = pr.analyze(Model(), example_inputs=torch.rand(1, 1, 16, 16)).outputs
    form = record.size[0]
    assert form is not None
    assert (record.unchanged, form.unchanged, form.since) == (unchanged, unchanged, since)
    changed = set[int]()
    for n in range(since, 40):
        try:
            real = Model()(torch.rand(1, 1, n, 16)).shape[2]
        except RuntimeError:
            assert n < 3
            continue
        assert form.at(n) == real
        changed |= {n % form.period} if real != n else set()
    assert set(form.changed) == changed


class OnRealInputs(nn.Module):
    """Reads a number out of a tensor, so that sizes are numbers, too."""

    def __init__(self, run: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.run, self.up, self.pad, self.pool = run, nn.Upsample(scale_factor=2), nn.ZeroPad2d(2), nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Any:
        x = F.conv2d(x, torch.ones(1, 1, 3, 3), padding=1)
        return self.run(x + 1 if float(x.mean()) > -99 else x) if self.run else self.pool(self.pad(self.up(x)))


BAKED: dict[str, tuple[Callable[[Tensor], Tensor], str | None]] = {
    "interpolate": (lambda x: F.interpolate(x, x.shape[2:]), None),
    "pool": (lambda x: F.avg_pool2d(x, [x.shape[2] // 2, 1]), None),
    "slice": (lambda x: x[:, :, : x.shape[2] - 2], None),
    "pad": (lambda x: F.pad(x, (0, 0, 0, -x.shape[2] % 5)), None),
    "padded convolution": (lambda x: F.conv2d(F.pad(x, (0, 0, 0, -x.shape[2] % 5)), torch.ones(1, 1, 3, 3)), None),
    "split": (lambda x: x.split(x.shape[2] // 2, 2)[0], None),
    "convolution": (lambda x: F.conv2d(x, torch.ones(1, 1, 3, 3), None, 2), "floor((H - 1)/2)"),
    "factor": (lambda x: F.interpolate(x, scale_factor=2), "2*H"),
    "step": (lambda x: x[:, :, ::2], "floor((H + 1)/2)"),
    "half": (lambda x: x.chunk(2, 2)[0], "floor((H + 1)/2)"),
    "mean": (lambda x: x * x.mean((2, 3), keepdim=True), "H"),
    "layer": (nn.Sequential(nn.ZeroPad2d(2), nn.MaxPool2d(2)), "floor((H + 4)/2)"),
}


@pytest.mark.parametrize("name", BAKED)
def test_sizes_that_became_numbers_are_not_taken_for_constants(name: str) -> None:
    run, text = BAKED[name]
    model = OnRealInputs(run)
    made = pr.analyze(model, example_inputs=torch.rand(1, 1, 16, 16))
    assert made.how == "real inputs"
    (record,) = made.outputs
    form = record.size[0]
    assert (None if form is None else str(form)) == text
    for n in range(14, 24) if form is not None else ():
        assert form.at(n) == model(torch.rand(1, 1, n, 16)).shape[2]


def test_a_record_that_lost_positions_proves_nothing() -> None:
    class Flipped(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, torch.ones(1, 1, 1, 1)).flip(2)

    (record,) = pr.analyze(Flipped(), example_inputs=torch.rand(1, 1, 8, 8)).outputs
    assert isinstance(record, NodeRecord)
    assert (record.dims, record.unchanged) == ((3,), None)
    assert record.ended is not None


NUMBERED: dict[str, Callable[[nn.Conv2d, Tensor], Tensor]] = {
    "a view of numbers": lambda conv, x: conv(x).view(1, 1, -1, 24),
    "a view of numbers in two": lambda conv, x: conv(x).view(1, 1, 24, -1),
    "a repetition": lambda conv, x: conv(x).repeat(1, 1, x.shape[2] // 24, 1),
}


@pytest.mark.parametrize("name", NUMBERED)
def test_numbers_of_a_recording_on_real_inputs_prove_nothing(name: str) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            assert float(x.sum()) == 0.0  # a value, which no symbolic recording has
            return NUMBERED[name](self.conv, x)

    analysis = pr.analyze(Model(), example_inputs=torch.zeros(1, 1, 24, 24))
    assert analysis.how == "real inputs"
    assert analysis.outputs[0].unchanged is None
