"""Symbolic sizes: which calls keep them, and which tie a recording to one size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import permutations
from typing import Any

import torch
import torch.nn.functional as F
from sympy import Not, Number
from sympy.logic.boolalg import BooleanAtom
from torch import Tensor, nn
from torch._prims_common import suggest_memory_format
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.utils._pytree import tree_leaves
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges, bound_sympy

from padrewrite.ops.conv import convolve, is_conv, own_padding, per_axis
from padrewrite.ops.partial import partial_conv
from padrewrite.ops.pool import pool_family, read_pool
from padrewrite.ops.sizes import value_of
from padrewrite.ops.symmetric import read_symmetric, symmetric_conv
from padrewrite.recording.execute import autocast_state
from padrewrite.source import Source


class Sizes(ShapeEnv):
    """The symbols of one recording. It notes where a size became a number, which no later size would have."""

    def __init__(self) -> None:
        super().__init__(duck_shape=False)
        self.fixed: tuple[Any, Any, Source | None] | None = None
        """The first such size, its number, and the line; None if the recording holds for all sizes."""
        self.line: Callable[[], Source | None] = lambda: None
        """The line of the model that is running."""
        self.in_forward = False
        """Whether the model runs. torch asks about inputs that share their memory before."""
        self.running: Any = None
        """The call of torch that runs; None while the model's own code does."""
        self._answers: dict[Any, None] = {}

    def evaluate_expr(self, orig_expr: Any, *args: Any, **kwargs: Any) -> Any:
        value = super().evaluate_expr(orig_expr, *args, **kwargs)
        if isinstance(value, (BooleanAtom, bool)):
            answer = orig_expr if value else Not(orig_expr)
            decides = self.running is None or (self.running in CUTTING and not _at_least(answer))
            if self.in_forward and decides:
                self._answers[answer] = None
        elif self.fixed is None and isinstance(value, (Number, int, float)) and orig_expr.free_symbols:
            self.fixed = orig_expr, value, self.line()
        return value

    @property
    def conditions(self) -> list[Any]:
        """What decided about results, as it was answered, unless it is so for all sizes.

        The model's own code asks, and so do crops, whether they end before the map does. What other calls of torch ask
        concerns how they compute, or whether they can.
        """
        return [answer for answer in self._answers if answer.free_symbols and not _always(answer)]

    def fake_mode(self, model: nn.Module) -> FakeTensorMode:
        """Tensors without values. With symbols, remembering a call costs as much as the call: it must come again."""
        mode = FakeTensorMode(shape_env=self, allow_non_fake_inputs=True)
        mode.cache_enabled = _repeats(model)
        return mode


def _always(answer: Any) -> bool:
    """Whether a condition holds for all sizes, by bounds alone: what else was answered must not make it true."""
    sizes = ValueRanges(2, int_oo)
    return bound_sympy(answer, dict.fromkeys(answer.free_symbols, sizes)).is_singleton()


def _at_least(answer: Any) -> bool:
    """Whether a condition holds for all but small sizes, like those of crops that count from the end."""
    names = sorted(str(symbol) for symbol in answer.free_symbols)
    return all(bool(value_of(answer, dict(zip(names, sizes)))) for sizes in _large(names))


def _large(names: Sequence[str]) -> Iterator[tuple[int, ...]]:
    """Large sizes in all orders, and of many residues."""
    yield from ((10**6 + more,) * len(names) for more in range(12))
    yield from permutations(10 ** (6 + n) for n in range(len(names)))


CUTTING = {
    *(Tensor.__getitem__, Tensor.narrow, torch.narrow, Tensor.chunk, torch.chunk, Tensor.split, torch.split),
    *(Tensor.tensor_split, torch.tensor_split, F.pad),
}


def _repeats(model: nn.Module) -> bool:
    """Whether layers are built alike by the dozen."""
    layers = [repr(module) for module in model.modules() if not any(True for _ in module.children())]
    return len(set(layers)) * 8 < len(layers)


def symbolic_sizes(tensor: Tensor) -> StatelessSymbolicContext[Any, Any]:
    """Every dimension but the batch and the channels may be of any size."""
    sizes = [DimDynamic.STATIC if d < 2 else DimDynamic.DYNAMIC for d in range(tensor.dim())]
    return StatelessSymbolicContext(dynamic_sizes=sizes)


def stand_in(func: Any, args: Any, kwargs: Any) -> Callable[..., Any]:
    """What computes the shape and type of a call of ``func`` without fixing sizes: mostly ``func`` itself."""
    if func is partial_conv and kwargs.get("mask") is None:
        return _plain_conv
    if func is symmetric_conv:
        return _wide_conv
    casts = any(enabled for _, enabled, _ in autocast_state())
    if func in _ALIKE and not casts and not _in_place(args, kwargs):
        return _clone
    if _rounds_up(func, args, kwargs):
        return partial(_ceiled, func)
    if func in (F.max_pool1d, torch.max_pool1d):
        return _max_pool1d
    if func is F.interpolate and args and args[0].dim() == 3 and kwargs.get("mode") == "area":
        return _area1d
    if func is F.interpolate and args and kwargs.get("mode") in _RESAMPLING:
        return _resampled
    if func is torch.adaptive_avg_pool1d:
        return _adaptive_avg_pool1d
    return _with_fake_weights(func, args[0].fake_mode) if _convolves_fake(func, args) else func


def _convolves_fake(func: Any, args: Any) -> bool:
    return is_conv(func) and bool(args) and isinstance(args[0], FakeTensor)


def _with_fake_weights(func: Any, mode: FakeTensorMode) -> Callable[..., Any]:
    """``func`` on weights without values: calls with real ones, torch does not remember."""

    def fake(value: Any) -> Any:
        return mode.from_tensor(value, static_shapes=True) if _is_real(value) else value

    def call(*args: Any, **kwargs: Any) -> Any:
        return func(*map(fake, args), **{name: fake(value) for name, value in kwargs.items()})

    return call


def _is_real(value: Any) -> bool:
    return isinstance(value, Tensor) and not isinstance(value, FakeTensor)


_ALIKE = {
    *(F.batch_norm, torch.prelu, F.leaky_relu, F.elu, F.gelu, F.silu, F.mish, F.hardswish, F.hardsigmoid, F.hardtanh),
    *(F.dropout, F.dropout2d, F.dropout3d, torch.sigmoid, torch.tanh, F.softplus, F.relu6),
}
"""Their result has the shape, the type and the layout of what they read; torch takes long to find that out."""


def _in_place(args: Any, kwargs: Any) -> bool:
    return bool(kwargs.get("inplace")) or any(value is True for value in args[1:])


def _clone(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return x.clone()


def _plain_conv(x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: Any, **_: Any) -> Any:
    """The convolution under a partial one."""
    rank = weight.dim() - 2
    kernel = tuple(int(k) for k in weight.shape[2:])
    rates = per_axis(dilation, rank)
    pairs = own_padding(padding, kernel, rates)
    return convolve(x, weight, bias, per_axis(stride, rank), pairs, rates, groups, ("zeros",) * rank)


def _wide_conv(
    x: Any, weight: Any, bias: Any, stride: Any, dilation: Any, groups: Any, *, order: str, padding: Any, **options: Any
) -> Any:
    """The convolution whose kernel has the taps of all channels of a symmetric one."""
    kernel = tuple(int(k) for k in weight.shape[2:])
    numbers = (kernel, stride, dilation, order, padding, options["axes"], options["modes"])
    window, symmetry, modes = read_symmetric(*numbers)
    more = [amount for axis in reversed(range(window.rank)) for amount in (0, int(axis in symmetry.axes))]
    wide = (window.stride, window.padding, window.dilation, groups, modes)
    return convolve(x, F.pad(weight, more), bias, *wide)


def _max_pool1d(x: Tensor, *args: Any, return_indices: bool = False, **kwargs: Any) -> Any:
    """With indices, torch keeps the size symbolic; without them it reads it as a number."""
    return F.max_pool1d(x, *args, return_indices=True, **kwargs)[0]


def _rounds_up(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether it is a pool with ceil_mode. torch asks how its last window lies, and answers for the recorded size."""
    if pool_family(func) is None or any(isinstance(n, torch.SymInt) for n in tree_leaves((args, kwargs))):
        return False
    pool = read_pool(func, args, kwargs)
    return pool is not None and pool.op.ceil


def _ceiled(func: Any, *args: Any, **kwargs: Any) -> Tensor:
    """A map of the size that is right for all: a last window begins on the map or on the padding before it."""
    pool = read_pool(func, args, kwargs)
    assert pool is not None
    x, w = pool.x, pool.op.window
    spans = [d * (k - 1) + 1 for k, d in zip(w.kernel, w.dilation)]
    past = [min(2 * p - span + s - 1, p - 1) for p, span, s in zip(w.lo, spans, w.stride)]
    return _map_like(x, [(n + more) // s + 1 for n, more, s in zip(x.shape[-w.rank :], past, w.stride)])


def _map_like(x: Tensor, sizes: Sequence[Any]) -> Tensor:
    out = x.new_empty((*x.shape[: -len(sizes)], *sizes))
    return out.contiguous(memory_format=suggest_memory_format(x))


def _adaptive_avg_pool1d(x: Tensor, output_size: Any) -> Tensor:
    """Its sizes are numbers to torch in one dimension and may be symbols in two."""
    (size,) = output_size if isinstance(output_size, (tuple, list)) else (output_size,)
    return F.adaptive_avg_pool2d(x.unsqueeze(-2), (1, size)).squeeze(-2)


_RESAMPLING = {"nearest", "nearest-exact", "linear", "bilinear", "trilinear", "bicubic"}


def _resampled(x: Tensor, size: Any = None, scale_factor: Any = None, *args: Any, **kwargs: Any) -> Tensor:
    """A map of the new size. torch would spell the weights of every neighbour out, in hundreds of symbolic calls."""
    sizes = x.shape[2:]
    if size is None:
        factors = per_axis(scale_factor, len(sizes))
        new = [n * int(f) if int(f) == f else torch.sym_int(n * f) for n, f in zip(sizes, factors)]
    else:
        new = per_axis(size, len(sizes))
    return _map_like(x, new)


def _area1d(x: Tensor, size: Any = None, scale_factor: Any = None, *args: Any, **kwargs: Any) -> Tensor:
    """Adaptive average pooling under another name."""

    def with_height(value: Any) -> Any:
        return None if value is None else (1, *(value if isinstance(value, (tuple, list)) else (value,)))

    return F.interpolate(x.unsqueeze(-2), with_height(size), with_height(scale_factor), *args, **kwargs).squeeze(-2)
