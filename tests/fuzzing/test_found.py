"""Networks on which the fuzzer found something wrong, made small. Each keeps every promise from then on."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from padrewrite.fuzzing.checking import check_spec
from padrewrite.fuzzing.networks import (
    Convolve,
    Crop,
    GlobalPool,
    Interpolate,
    LayerSpec,
    Merge,
    NetSpec,
    Pad,
    Pool,
    Shuffle,
    Symmetric,
    SymmetricSpec,
)


@dataclass(frozen=True)
class Found:
    """A network, and the checks that did not hold on it."""

    spec: NetSpec
    passes: tuple[str, ...]


FOUND = {
    "a pad that a convolution folds and a pool reads": Found(
        NetSpec(
            shape=(3, 4),
            layers=(LayerSpec(3, 3, kernel=(1,)),),
            steps=(Pad((0,), ((1, 2),)), Convolve((1,), layer=0), Pool((1,), "max", kernel=(3,))),
        ),
        ("partial-padding", "padding-mode"),
    ),
    "a pad that a convolution folds and a reduction reads": Found(
        NetSpec(
            shape=(4, 2, 2, 2),
            layers=(LayerSpec(4, 3, kernel=(1, 1, 1)),),
            steps=(Pad((0,), ((0, 3), (3, 1), (0, 1))), Convolve((1,), layer=0), GlobalPool((1,), "mean")),
        ),
        ("partial-padding",),
    ),
    "a pad that one convolution folds and another, with zeros of its own, does not": Found(
        NetSpec(
            shape=(4, 3, 3),
            layers=(LayerSpec(4, 5, kernel=(1, 2), padding="same"), LayerSpec(4, 5, kernel=(1, 1))),
            steps=(
                Pad((0,), ((0, 0), (1, 0)), mode="circular"),
                Convolve((1,), layer=0),
                Convolve((1,), layer=1),
            ),
        ),
        ("padding-mode",),
    ),
    "the size of what adaptive pooling in one dimension makes": Found(
        NetSpec(
            shape=(1, 6),
            layers=(),
            steps=(
                Interpolate((0,), "area", factors=(1.3,)),
                Interpolate((1, 1), "linear"),
                Merge((1, 2), "cat"),
            ),
        ),
        (),
    ),
    "the size of an input that is max-pooled in one dimension": Found(
        NetSpec(
            shape=(1, 6),
            layers=(),
            steps=(
                Pool((0,), "max", kernel=(2,)),
                Interpolate((0, 0), "linear"),
                Merge((2, 0), "add"),
            ),
        ),
        (),
    ),
    "area interpolation of a batch of one": Found(
        NetSpec(shape=(1, 4), layers=(), steps=(Interpolate((0,), "area", factors=(0.7,)),)),
        ("output-stride{stride=2}",),
    ),
    "a pool that loses its stride and is an output": Found(
        NetSpec(
            shape=(4, 9, 9),
            layers=(LayerSpec(4, 8, kernel=(1, 1), stride=(2, 2)),),
            steps=(Convolve((0,), layer=0), Pool((1,), "max", kernel=(3, 3), stride=(2, 2), padding=(1, 1))),
        ),
        ("output-stride{stride=2}",),
    ),
    "an average pool that is spelled out and is an output": Found(
        NetSpec(
            shape=(2, 12, 14),
            layers=(LayerSpec(2, 2, kernel=(3, 3), stride=(2, 2), padding=(1, 1)),),
            steps=(Convolve((0,), layer=0), Pool((1,), "avg", kernel=(3, 3), stride=(1, 1), padding=(1, 1))),
        ),
        ("output-stride{stride=1}",),
    ),
    "a symmetric convolution that the forward calls itself": Found(
        NetSpec(
            shape=(3, 5, 4),
            layers=(SymmetricSpec(3, 2, kernel=(2, 3), dilation=(2, 2), order="raster", functional=True),),
            steps=(Symmetric((0,), layer=0),),
        ),
        ("padding-mode", "partial-padding"),
    ),
    "a layer called twice that another stands for": Found(
        NetSpec(
            shape=(2, 9, 9),
            layers=(LayerSpec(2, 6, kernel=(3, 3)),),
            steps=(Pool((0,), "max", kernel=(2, 2), stride=(1, 1)), Convolve((0,), layer=0), Convolve((1,), layer=0)),
        ),
        ("separable-kernel{mid=1,min_kernel=2}",),
    ),
    "a size that happens to be the one a crop stops at": Found(
        NetSpec(
            shape=(1, 6, 9),
            layers=(),
            steps=(
                Crop((0,), ((None, 6, 1), (None, 9, 1))),
                Shuffle((1,), factor=3, inverse=True),
                GlobalPool((0,), "mean"),
                Interpolate((3, 0), "bilinear"),
            ),
        ),
        (),
    ),
    "a symmetric layer of odd kernel, padded by name at a stride": Found(
        NetSpec(
            shape=(1, 9),
            layers=(SymmetricSpec(1, 3, kernel=(3,), stride=(2,)),),
            steps=(Symmetric((0,), layer=0),),
        ),
        ("partial-padding", "padding-mode"),
    ),
    "rates that change while sizes stay": Found(
        NetSpec(
            shape=(1, 30),
            layers=(
                LayerSpec(1, 2, kernel=(3,), dilation=(2,), padding=(2,)),
                LayerSpec(2, 1, kernel=(3,), dilation=(4,), padding=(4,)),
            ),
            steps=(Convolve((0,), layer=0), Convolve((1,), layer=1)),
        ),
        ("hybrid-dilation",),
    ),
}


@pytest.mark.parametrize("found", FOUND.values(), ids=FOUND.keys())
def test_every_promise_is_kept(found: Found) -> None:
    result = check_spec(found.spec, found.passes)
    assert result.refused is None
    assert result.ok, "\n".join(f"{o.check}: {o.note}" for o in result.failures)
