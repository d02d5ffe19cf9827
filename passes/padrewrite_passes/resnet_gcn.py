"""ResNet-GCN: bottleneck blocks of the last stages get large separable kernels in the place of their first two layers.

    relu(bn(conv3(relu(bn(conv2(relu(bn(conv1(x)))))))) = ... becomes ... conv3(A(x) + B(x))
    A = (k x 1, bn, relu, 1 x k, bn, relu)        B = (1 x k, bn, relu, k x 1, bn, relu)

Each convolution has m channels, the first of a branch the block's stride, the last, 1 x 1, m inputs. As in the paper
a norm and a ReLU follow each, so nothing of the old weights can be carried over: all new layers begin anew.

Source: Peng et al. 2017, Large Kernel Matters (GCN), Fig. 5 and Table 11.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from padrewrite.analyses.bottlenecks import Bottleneck, find_bottlenecks
from padrewrite.contracts import Contract
from padrewrite.graph import Graph
from padrewrite.ops.assembly import Assembly, Branch, Norm, Part, Relu
from padrewrite.ops.conv import Conv
from padrewrite.ops.separable import ORDERS
from padrewrite.ops.window import Window
from padrewrite.rewriting import Check, Match, Pass


@dataclass(frozen=True)
class Block(Match):
    """The convolutions of a bottleneck."""

    block: Bottleneck = field(default_factory=lambda: Bottleneck(()))


@dataclass(frozen=True)
class ResnetGcn(Pass):
    """Bottleneck blocks become those of ResNet-GCN."""

    name: ClassVar[str] = "resnet-gcn"
    contract: ClassVar[str] = "shape"
    needs: ClassVar[Literal["module", "dataflow"]] = "dataflow"
    codes: ClassVar[Mapping[str, str]] = {
        "already-gcn": "the block has a global convolution",
        "earlier-stage": "the block is of a stage before those that are rewritten",
        "grouped": "its convolutions have groups",
        "not-an-image": "its maps have one or three axes, kernels of two are put in",
        "own-padding": "its k x k convolution does not keep the size of the map",
    }

    kernels: tuple[int, ...] = (5, 7)
    """Kernel sizes, odd, of the last stages; (5, 7): 5 in the last but one, 7 in the last."""
    channels: tuple[int, ...] = (85, 128)
    """Channels of the kernels of these stages."""

    def __post_init__(self) -> None:
        for name, given in (("kernels", self.kernels), ("channels", self.channels)):
            if not isinstance(given, Sequence) or isinstance(given, str):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ValueError(f"{name}={given!r} is not a list, one number a stage: write {name}=[{given}]")
        if not self.kernels or len(self.kernels) != len(self.channels):
            raise ValueError(f"kernels={self.kernels!r} and channels={self.channels!r} are not as many")
        if not all(isinstance(k, int) and k > 0 and k % 2 for k in self.kernels):
            raise ValueError(f"kernels={self.kernels!r} are not odd sizes")
        if not all(isinstance(m, int) and m > 0 for m in self.channels):
            raise ValueError(f"channels={self.channels!r} are not numbers of channels")

    def match(self, graph: Graph) -> Iterator[Match]:
        for block in find_bottlenecks(graph):
            yield Block(block.sites, block=block)

    def legality(self, match: Match) -> Iterator[Check]:
        block = _block(match)
        ops = [site.op for site in match.sites]
        late = block.stage < len(self.kernels)
        yield Check.keep("already-gcn", not block.done, "the block has a global convolution")
        yield Check.keep("earlier-stage", late, f"its stage is {block.stage + 1} from the end")
        yield Check("not-an-image", ops[0].window.rank == 2, f"its maps have {ops[0].window.rank} axes, not 2")
        yield Check("grouped", all(op.groups == 1 for op in ops), "its convolutions have groups")
        middle = ops[1].window
        same = all(lo == hi == (span - 1) / 2 for lo, hi, span in zip(middle.lo, middle.hi, middle.span))
        yield Check("own-padding", same, "its k x k convolution does not keep the size of the map")

    def rewrite(self, match: Match) -> tuple[Assembly, ...]:
        block = _block(match)
        k, m = self.kernels[-1 - block.stage], self.channels[-1 - block.stage]
        first, second, last = (site.op for site in match.sites)
        assert isinstance(first, Conv)
        assert isinstance(last, Conv)
        stride = tuple(a * b for a, b in zip(first.stride, second.window.stride))
        branches = tuple(Branch(name, _branch(axes, first.in_channels, m, k, stride)) for name, axes in ORDERS.items())
        narrow = Assembly((Branch("conv", (replace(last, in_channels=m),)),))
        gone = (Assembly((), skip=True, drops=block.norms[n:]) for n in (1,))
        return (Assembly(branches, drops=block.norms[:1]), *gone, narrow)

    def promise(self, match: Match) -> Contract:
        return Contract("shape")


def _block(match: Match) -> Bottleneck:
    assert isinstance(match, Block)
    return match.block


def _branch(axes: tuple[int, int], channels: int, m: int, k: int, stride: tuple[int, ...]) -> tuple[Part, ...]:
    parts: list[Part] = []
    for inner, axis, steps in ((channels, axes[0], stride), (m, axes[1], (1, 1))):
        kernel = tuple(k if a == axis else 1 for a in (0, 1))
        pads = tuple(n // 2 for n in kernel)
        conv = Conv(Window(kernel, steps, (1, 1), pads, pads), inner, m, 1, False, ("zeros", "zeros"))
        parts += [conv, Norm(m), Relu()]
    return tuple(parts)
