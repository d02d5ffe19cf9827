"""The collection itself: each network builds, runs and repeats itself; the counter counts right."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import counting
from .awkward import AWKWARD
from .counting import count_convolutions
from .networks import NETWORKS, Network, call, each, tensors_in

ALL = {**NETWORKS, **AWKWARD}


def outputs(network: Network, model: nn.Module) -> list[Tensor]:
    """The tensors of one run, random numbers repeated."""
    with torch.no_grad(), torch.random.fork_rng(devices=()):
        torch.manual_seed(3)
        return [t.clone() for t in tensors_in(call(model, network.inputs()))]


@pytest.mark.parametrize("network", each(ALL))
def test_network_repeats_itself(network: Network) -> None:
    """Two builds give the same numbers, finite and not all equal."""
    one, two = outputs(network, network.make()), outputs(network, network.make())
    assert one
    assert len(one) == len(two)
    assert all(torch.equal(a, b) for a, b in zip(one, two))
    assert all(bool(a.isfinite().all()) for a in one)
    assert any(float(a.abs().max()) > 1e-3 and bool((a != a.flatten()[0]).any()) for a in one)


@pytest.mark.parametrize("network", each(ALL))
def test_counts_do_not_depend_on_the_grad_mode(network: Network) -> None:
    """no_grad and inference_mode decompose convolutions at different levels; the counts and weights agree."""
    runs: list[list[tuple[int, ...]]] = []
    for inference in (False, True):
        model, inputs = network.make(), network.inputs()
        calls = count_convolutions(
            lambda model=model, inputs=inputs: call(model, inputs), inference=inference
        )
        runs.append([c.weight_shape for c in calls])
    assert runs[0] == runs[1]


def test_collection_is_broad() -> None:
    real = [n for n in NETWORKS.values() if n.fast]
    assert len(real) >= 26
    assert {n.package for n in real} == {"pytorchcv", "monai", "efficientnet_pytorch"}
    assert len([n for n in AWKWARD.values() if n.expect is None]) >= 35
    assert all(type(n.build()).__doc__ for n in AWKWARD.values())


def _modules(*layers: nn.Module) -> Callable[[Tensor], object]:
    return nn.Sequential(*layers)


COUNTED = {
    "module": (_modules(nn.Conv2d(4, 4, 3, padding=1)), (1, 4, 6, 7), 1),
    "twice": (_modules(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1)), (1, 4, 6, 7), 2),
    "even same": (_modules(nn.Conv2d(4, 4, 2, padding="same")), (1, 4, 6, 7), 1),
    "odd same": (_modules(nn.Conv2d(4, 4, 3, padding="same")), (1, 4, 6, 7), 1),
    "reflect": (_modules(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")), (1, 4, 6, 7), 1),
    "depthwise": (_modules(nn.Conv2d(4, 8, 3, groups=4, dilation=2)), (1, 4, 6, 7), 1),
    "unbatched": (_modules(nn.Conv2d(4, 4, 3)), (4, 6, 7), 1),
    "1-D": (_modules(nn.Conv1d(4, 4, 3)), (2, 4, 6), 1),
    "3-D": (_modules(nn.Conv3d(4, 4, 3)), (2, 4, 6, 5, 4), 1),
    "transposed": (_modules(nn.ConvTranspose1d(4, 4, 3), nn.ConvTranspose1d(4, 2, 2)), (2, 4, 6), 2),
    "functional": (lambda x: F.conv2d(x, torch.ones(1, 4, 3, 3)), (1, 4, 6, 7), 1),
    "aten": (lambda x: torch.ops.aten.conv2d(x, torch.ones(1, 4, 3, 3)), (1, 4, 6, 7), 1),
    "low level": (
        lambda x: torch.convolution(
            x, torch.ones(1, 4, 3, 3), None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1
        ),
        (1, 4, 6, 7),
        1,
    ),
    "no convolution": (
        lambda x: F.avg_pool2d(x.to(torch.float64), 2) @ torch.ones(3, 2).double(),
        (1, 4, 6, 7),
        0,
    ),
}


@pytest.mark.parametrize("mode", ["grad", "no_grad", "inference"])
@pytest.mark.parametrize("case", COUNTED)
def test_counter(case: str, mode: str) -> None:
    run, shape, count = COUNTED[case]
    x = torch.randn(shape)
    if mode == "grad":
        with counting.ConvolutionCounter() as counter:
            run(x)
        calls = counter.calls
    else:
        calls = count_convolutions(lambda: run(x), inference=mode == "inference")
    assert len(calls) == count
    assert all(len(c.weight_shape) >= 3 and len(c.input_shape) >= 3 for c in calls)


def test_counter_counts_scripted_code_and_not_the_backward_pass() -> None:
    scripted = torch.jit.script(nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)))
    x = torch.randn(1, 4, 9, 9)
    for _ in range(3):  # the profiling executor swaps in optimised code at the second and third call
        assert len(count_convolutions(lambda: scripted(x))) == 2
    with counting.ConvolutionCounter() as counter:
        F.conv2d(x, torch.ones(1, 4, 3, 3, requires_grad=True)).sum().backward()
    assert len(counter.calls) == 1


def test_counter_knows_nothing_of_the_engine() -> None:
    tree = ast.parse(Path(counting.__file__).read_text(encoding="utf-8"))
    names = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert not [name for name in names if name is None or name.split(".")[0] == "padrewrite"]
