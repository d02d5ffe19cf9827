"""Layers made of several: what a replaced convolution becomes, and what can be attached behind one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from padrewrite.nn.axis_padding import AxisPaddedConv1d, AxisPaddedConv2d, AxisPaddedConv3d
from padrewrite.nn.deriving import derived_class
from padrewrite.nn.partial import PartialConv1d, PartialConv2d, PartialConv3d
from padrewrite.nn.symmetric import SymmetricConv1d, SymmetricConv2d, SymmetricConv3d
from padrewrite.ops.assembly import Assembly, Norm, Part
from padrewrite.ops.carrying import of_checkpoint, why_unfit
from padrewrite.ops.conv import Conv
from padrewrite.ops.directions import even_axes
from padrewrite.ops.pool import Pool, emit_pool

_PLAIN: Any = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_PARTIAL: Any = {1: PartialConv1d, 2: PartialConv2d, 3: PartialConv3d}
_PER_AXIS: Any = {1: AxisPaddedConv1d, 2: AxisPaddedConv2d, 3: AxisPaddedConv3d}
_SYMMETRIC: Any = {1: SymmetricConv1d, 2: SymmetricConv2d, 3: SymmetricConv3d}
_NORMS: Any = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def conv_layer(op: Conv, device: Any = None, dtype: Any = None) -> nn.Module:
    """A layer that computes ``op``: torch's own where it can say it, else one of padrewrite.nn."""
    w, modes = op.window, {op.modes[a] for a in op.padded_axes} or {"zeros"}
    numbers: Any = {"stride": w.stride, "dilation": w.dilation, "groups": op.groups, "bias": op.bias}
    numbers |= {"device": device, "dtype": dtype}
    shape = (op.in_channels, op.out_channels, w.kernel)
    if op.symmetric is not None:
        return _symmetric_layer(op, shape, numbers)
    if op.partial is None and w.lo == w.hi and len(modes) == 1:
        return _PLAIN[w.rank](*shape, padding=w.lo, padding_mode=modes.pop(), **numbers)
    kinds = _PER_AXIS if op.partial is None else _PARTIAL
    layer = kinds[w.rank](*shape, **numbers)
    layer.padding = w.lo if w.lo == w.hi else w.padding
    if op.partial is not None:
        layer.partial_scale = op.partial
    if op.partial is None or modes != {"zeros"}:
        layer.axis_modes = op.modes
    return layer


def _symmetric_layer(op: Conv, shape: tuple[Any, ...], numbers: Any) -> nn.Module:
    assert op.symmetric is not None
    w, modes = op.window, {op.modes[a] for a in op.padded_axes} or {"zeros"}
    padding = w.lo if w.lo == w.hi else w.padding
    layer: Any = _SYMMETRIC[w.rank](*shape, padding=padding, order=op.symmetric.order, **numbers)
    if op.symmetric.axes != even_axes(w.kernel):
        layer.symmetric_axes = op.symmetric.axes
    if modes != {"zeros"}:
        layer.axis_modes = op.modes
    layer.partial_scale = op.partial
    return layer


def _layer(part: Part, rank: int, device: Any, dtype: Any) -> nn.Module:
    if isinstance(part, Conv):
        return conv_layer(part, device, dtype)
    if isinstance(part, Pool):
        return PoolLayer(part)
    if isinstance(part, Norm):
        return _NORMS[rank](part.channels, device=device, dtype=dtype)
    return nn.ReLU()


class PoolLayer(nn.Module):
    """A pool of any kind that ``ops.Pool`` can say."""

    def __init__(self, op: Pool) -> None:
        super().__init__()
        self.op = op

    def forward(self, input: Tensor) -> Tensor:
        return emit_pool(input, self.op)

    def extra_repr(self) -> str:
        w = self.op.window
        kernel, stride, dilation = ("x".join(map(str, numbers)) for numbers in (w.kernel, w.stride, w.dilation))
        text = f"{'avg' if self.op.average else 'max'} {kernel}, stride {stride}"
        text += f", padding={w.padding}" if any(map(any, w.padding)) else ""
        text += f", dilation {dilation}" if max(w.dilation) > 1 else ""
        return f"{text}, ceil" if self.op.ceil else text


class PassedOn(nn.Module):
    """In the place of a layer that is no more: copies its input, and takes any checkpoint of that layer."""

    def forward(self, input: Tensor) -> Tensor:
        # A ReLU behind may write into what it is given, which must be neither what a layer before has to remember nor
        # the view that a backward hook on that layer makes of its output.
        return torch.clone(input)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for name in [key for key in state_dict if key.startswith(prefix)]:
            state_dict.pop(name)


class Assembled(nn.Module):
    """Parallel branches whose results are added; see ``ops.assembly``.

    Args:
        assembly: what it computes.
        replaced: the convolution in whose place it stands, if it does: checkpoints of that one load, too.
    """

    def __init__(self, assembly: Assembly, replaced: Conv | None = None, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.assembly, self.replaced = assembly, replaced
        rank = assembly.window.rank
        for branch in assembly.branches:
            layers = [_layer(part, rank, device, dtype) for part in branch.parts]
            self.add_module(branch.name, nn.Sequential(*layers))
        with torch.no_grad():
            for name in assembly.zero:
                for parameter in self.get_submodule(name).parameters():
                    parameter.zero_()

    def forward(self, input: Tensor) -> Tensor:
        """``(N, in_channels, *spatial)`` to ``(N, out_channels, *out_spatial)``."""
        total = input if self.assembly.skip else None
        for branch in self.assembly.branches:
            result: Tensor = self.get_submodule(branch.name)(input)
            total = result if total is None else torch.add(total, result)
        assert total is not None
        return total

    @property
    def in_channels(self) -> int:
        return self.assembly.in_channels

    @property
    def out_channels(self) -> int:
        return self.assembly.out_channels

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """Of all together, as are stride and dilation."""
        return self.assembly.window.kernel

    @property
    def stride(self) -> tuple[int, ...]:
        return self.assembly.window.stride

    @property
    def dilation(self) -> tuple[int, ...]:
        return self.assembly.window.dilation

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Takes its own keys, or those of the layer it replaced, whose values are carried over anew."""
        own = tuple(f"{prefix}{branch.name}." for branch in self.assembly.branches)
        old = any(f"{prefix}{name}" in state_dict for name in ("weight", "bias"))
        if self.replaced is not None and old and not any(key.startswith(own) for key in state_dict):
            self._take(state_dict, prefix, local_metadata, missing_keys, error_msgs)
        rest = (local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _take(
        self, state_dict: Any, prefix: str, metadata: Any, missing_keys: list[str], error_msgs: list[str]
    ) -> None:
        """What there is of the old layer's keys. A bias that it did not have stays: torch calls it unexpected."""
        old = self.replaced
        assert old is not None
        names = ("weight", "bias") if old.bias else ("weight",)
        given: dict[str, Tensor | None] = {name: state_dict.pop(f"{prefix}{name}", None) for name in names}
        missing_keys += [f"{prefix}{name}" for name, value in given.items() if value is None]
        weight, bias, state = given["weight"], given.get("bias"), dict[str, Tensor]()
        error = None if weight is None else why_unfit(old, self.assembly, weight)
        if error is not None:
            error_msgs.append(error.format(f"{prefix}weight"))
        elif self.assembly.carry is not None:
            state = of_checkpoint(old, self.assembly, weight, bias)
        # Without a weight that can be taken, what is attached to the parts stays as it is, too.
        left = self.state_dict() if weight is None or error is not None else _values(self, weight, metadata)
        state_dict.update({f"{prefix}{name}": value for name, value in {**left, **state}.items()})

    def own_state(self) -> dict[str, Tensor]:
        """The state without that of layers attached to its parts: they fill in theirs themselves."""
        attached = [f"{name}.{m.attached}." for name, m in self.named_modules() if isinstance(m, AttachedMixin)]
        return {name: value for name, value in self.state_dict().items() if not name.startswith(tuple(attached))}

    def extra_repr(self) -> str:
        parts = [f"{name} {'x'.join(map(str, c.kernel))}" for name, c in self.assembly.convs.items()]
        return ", ".join([*parts, "skip"] if self.assembly.skip else parts)


class AttachedMixin(nn.Module):
    """A layer with another behind it: the child of name ``attached``. Keys of its own stay as they are."""

    attached: str = ""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.get_submodule(self.attached)(super().forward(*args, **kwargs))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A checkpoint of the layer without the child's keys makes the child add nothing again.

        One without the layer's weight says nothing about the child: its keys are missing then.
        """
        start, child = f"{prefix}{self.attached}.", self.get_submodule(self.attached)
        names = (name for name in self.state_dict() if name.rpartition(".")[2] != "bias")
        held = [state_dict[f"{prefix}{name}"] for name in names if f"{prefix}{name}" in state_dict]
        if held and not any(key.startswith(start) for key in state_dict):
            assert isinstance(child, Assembled)
            zero = tuple(f"{name}." for name in child.assembly.zero)
            for name, value in _values(child, held[0], rest[0]).items():
                state_dict[f"{start}{name}"] = torch.zeros_like(value) if name.startswith(zero) else value
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _values(layer: Assembled, like: Tensor, metadata: Any) -> dict[str, Tensor]:
    """Values for keys that a checkpoint does not have: those that the layer has, or new ones where it is on meta.

    With ``assign=True`` parameters become what is given, so these take the type and device of the checkpoint's.
    """
    state = layer.own_state()
    if not metadata.get("assign_to_params_buffers", False):
        return state
    if any(value.is_meta for value in state.values()):
        state = Assembled(layer.assembly, device=like.device, dtype=like.dtype).state_dict()
    kinds = {name: like.dtype if value.is_floating_point() else value.dtype for name, value in state.items()}
    return {name: value.to(device=like.device, dtype=kinds[name]) for name, value in state.items()}


def attached_class(base: type) -> type:
    """``base`` with a layer behind it; the same class each time."""
    return derived_class(AttachedMixin, base, "Attached")
