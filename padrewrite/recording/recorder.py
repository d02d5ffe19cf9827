"""The recorder: runs a forward once under a TorchFunctionMode and writes each torch call into an fx graph."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
import torch.fx as fx
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd  # pyright: ignore[reportPrivateUsage]
from torch.nn.modules.padding import (
    _CircularPadNd,  # pyright: ignore[reportPrivateUsage]
    _ConstantPadNd,  # pyright: ignore[reportPrivateUsage]
    _ReflectionPadNd,  # pyright: ignore[reportPrivateUsage]
    _ReplicationPadNd,  # pyright: ignore[reportPrivateUsage]
)
from torch.nn.modules.pooling import (
    _AvgPoolNd,  # pyright: ignore[reportPrivateUsage]
    _MaxPoolNd,  # pyright: ignore[reportPrivateUsage]
)
from torch.overrides import TorchFunctionMode

from padrewrite.errors import RecordError
from padrewrite.graph import Call, Frame
from padrewrite.ops.conv import family, is_conv
from padrewrite.ops.pool import pool_family
from padrewrite.ops.sizes import evaluate_size, print_size, size_name
from padrewrite.recording.births import Births, storage_of
from padrewrite.recording.execute import autocast_state
from padrewrite.recording.inputs import Inputs
from padrewrite.recording.symbolic import Sizes, stand_in
from padrewrite.recording.tensors import placed_tensors, tensors_in
from padrewrite.source import Source, first_outside

_PADS = (_CircularPadNd, _ConstantPadNd, _ReflectionPadNd, _ReplicationPadNd)
_POOLS = (_MaxPoolNd, _AvgPoolNd)
_MUTATORS = {"__setitem__", "__set__", "__delitem__"}


@dataclass
class _ModuleCall:
    """A module call that is running."""

    fqn: str
    call: int
    module: nn.Module | None = None
    first: Tensor | None = None
    """Its first positional argument, if that is a tensor."""
    inside: dict[str, int] = field(default_factory=dict)
    """Calls per family so far, those of modules inside included."""
    direct: dict[str, int] = field(default_factory=dict)
    """Calls per family so far that the module makes itself."""


class Recorder(TorchFunctionMode):
    """Builds ``graph`` while it is active. One use; see ``trace.py`` for who drives it."""

    def __init__(
        self,
        names: dict[int, str],
        births: Births | None,
        symbols: dict[Any, tuple[int, int]],
        sizes: Sizes | None = None,
    ) -> None:
        super().__init__()
        self.graph = fx.Graph()
        self.constants: dict[str, Tensor] = {}
        self._names = names
        self._births = births
        self._symbols = symbols
        self._sizes = sizes
        if sizes is not None:
            sizes.line = _source
        self._inputs: list[fx.Node] = []
        self._node_of: dict[int, fx.Node] = {}
        self._names_of: dict[Any, Any] = {}
        self._alive: list[Any] = []
        """Keeps every tensor seen, because ``_node_of`` is keyed by id."""
        self._stack: list[_ModuleCall] = [_ModuleCall("", 0)]
        self._calls: dict[str, int] = {}
        self._pads: dict[int, list[fx.Node]] = {}
        """Explicit pads by the storage of their result, to learn of writes into them."""
        self._autocast = autocast_state()
        self.reads_values = False
        self._left_torch = False
        self.failed: str | None = None
        """The first call that raised. Where the forward goes on, it takes a path that torch has not told."""

    def add_inputs(self, inputs: Inputs) -> None:
        for index, tensor in enumerate(inputs.tensors):
            node = self.graph.placeholder(f"input_{index}")
            self._inputs.append(node)
            self._bind_tensor(tensor, node)

    def finish(self, output: Any) -> None:
        """Closes the graph: its output is the flat tuple of tensors in ``output``."""
        placed = list(placed_tensors(output))
        self.graph.output(tuple(self._node(t) for _, t in placed)).meta["paths"] = tuple(path for path, _ in placed)

    @contextmanager
    def following(self, model: nn.Module) -> Iterator[None]:
        """Hooks on every module that keep track of which one is running."""
        handles: list[Any] = []
        for fqn, module in model.named_modules():
            handles.append(module.register_forward_pre_hook(self._enter(fqn), prepend=True))
            handles.append(module.register_forward_hook(self._leave, always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def call(self, model: nn.Module, inputs: Inputs) -> Any:
        """Runs the model. What calls this is not the model's, and named as the source of nothing."""
        if self._sizes is None:
            return model(*inputs.args, **inputs.kwargs)
        self._sizes.in_forward = True
        try:
            output = model(*inputs.args, **inputs.kwargs)
        finally:
            self._sizes.in_forward = False
        if self.failed is not None:
            raise RecordError(f"{self.failed} failed and the forward went on, which it may not do at other sizes")
        return output

    def conditions(self) -> tuple[Any, ...]:
        """At which input sizes the forward takes the path that was recorded: all of these must hold."""
        asked = [] if self._sizes is None else self._sizes.conditions
        if any(symbol not in self._symbols for condition in asked for symbol in condition.free_symbols):
            raise RecordError("the forward asks about a size that is none of the inputs' own")
        return tuple(dict.fromkeys(map(self._renamed, asked)))

    def _enter(self, fqn: str) -> Any:
        def hook(module: nn.Module, args: Any) -> None:
            call = self._calls.get(fqn, -1) + 1
            self._calls[fqn] = call
            first = args[0] if args and isinstance(args[0], Tensor) else None
            self._stack.append(_ModuleCall(fqn, call, module, first))

        return hook

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if len(self._stack) > 1:
            self._stack.pop()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._sizes is None:
            return self._record(func, args, kwargs or {})
        self._sizes.running = func
        try:
            return self._record(func, args, kwargs or {})
        except Exception:
            self.failed = self.failed or getattr(func, "__name__", str(func))
            raise
        finally:
            self._sizes.running = None

    def _record(self, func: Any, args: Any, kwargs: Any) -> Any:
        operands = (args, kwargs)
        before = self._prepare(func, operands)
        result = (stand_in(func, args, kwargs) if self._symbols else func)(*args, **kwargs)
        if before is None or not (self._mutates(func, kwargs) or any(True for _ in tensors_in(result))):
            return result
        target, mapped_args, mapped_kwargs = before
        node = self.graph.call_function(target, mapped_args, mapped_kwargs)
        self._describe(node, func, args, kwargs)
        if self._mutates(func, kwargs):
            self._note_write(kwargs.get("out", args[0] if args else None))
        self._bind(result, node)
        if func is nn.functional.pad:
            self._pads.setdefault(storage_of(result), []).append(node)
        for tensor in tensors_in(kwargs.get("out")):
            self._bind_tensor(tensor, node)
        return result

    def _note_write(self, written: Any) -> None:
        """A pad that is written into afterwards no longer holds what it padded with."""
        for tensor in tensors_in(written):
            for pad in self._pads.get(storage_of(tensor), ()):
                pad.meta["overwritten"] = True

    def _prepare(self, func: Any, operands: Any) -> tuple[Any, Any, Any] | None:
        """The call as graph arguments, read before it runs: an in-place call changes what they mean."""
        name = getattr(func, "__name__", "")
        if name in ("__get__", "__set__"):
            attribute = func.__self__.__name__
            if name == "__get__" and attribute in _NUMBERS:
                return None
            args = (operands[0][0], attribute, *operands[0][1:])
            return (getattr if name == "__get__" else setattr), self._map(args), {}
        if name in _LEAVING and self._node_of.get(id(operands[0][0])) is not None:
            self.reads_values = True
            self._left_torch = self._left_torch or name in ("numpy", "__array__", "tolist")
        if name in _SILENT:
            return None
        return func, self._map(operands[0]), self._map(operands[1])

    @staticmethod
    def _mutates(func: Any, kwargs: Any) -> bool:
        name = getattr(func, "__name__", "")
        return name in _MUTATORS or (name.endswith("_") and not name.endswith("__")) or kwargs.get("out") is not None

    def _map(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._node(value)
        if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
            return self._size(value)
        if isinstance(value, (tuple, list)):
            mapped = [self._map(v) for v in value]  # pyright: ignore[reportUnknownVariableType]
            return tuple(mapped) if isinstance(value, tuple) else mapped
        if isinstance(value, dict):
            return {k: self._map(v) for k, v in value.items()}  # pyright: ignore[reportUnknownVariableType]
        if isinstance(value, slice):
            return slice(self._map(value.start), self._map(value.stop), self._map(value.step))  # pyright: ignore[reportUnknownArgumentType,reportUnknownMemberType]
        return value

    def _node(self, tensor: Tensor) -> fx.Node:
        node = self._node_of.get(id(tensor))
        if node is not None:
            return node
        name = self._names.get(id(tensor))
        if name is None:
            if self._left_torch or (self._births is not None and self._births.made(tensor)):
                raise RecordError(f"a tensor of shape {tuple(tensor.shape)} was made by calls that torch does not show")
            name = f"_constant_{len(self.constants)}"
            self.constants[name] = tensor
        node = self.graph.get_attr(name)
        self._bind_tensor(tensor, node)
        return node

    def _size(self, value: Any) -> Any:
        """A symbolic number as a node; a symbolic number that is known as that number."""
        expression = value.node.expr
        if expression.is_number:
            return value.node.maybe_as_int() if isinstance(value, torch.SymInt) else float(expression)
        free = sorted(expression.free_symbols, key=lambda s: self._symbols.get(s, (1 << 30, 0)))
        if any(s not in self._symbols for s in free):
            raise RecordError(_BY_VALUES)
        places = tuple(self._symbols[s] for s in free)
        names = tuple(size_name(i, d) for i, d in places)
        renamed = self._renamed(expression)
        sources = [self._inputs[i] for i, _ in places]
        dims = tuple(d for _, d in places)
        node = self.graph.call_function(evaluate_size, (print_size(renamed), names, dims, *sources))
        node.meta["value"] = value.node.hint
        node.meta["expression"] = renamed
        return node

    def _renamed(self, expression: Any) -> Any:
        """``expression`` in the names that stand for the inputs' sizes."""
        if expression not in self._names_of:
            names = {s: size_name(*self._symbols[s]) for s in expression.free_symbols if s in self._symbols}
            renaming = {s: type(s)(n, integer=True, positive=True) for s, n in names.items()}
            self._names_of[expression] = expression.xreplace(renaming)
        return self._names_of[expression]

    def _expression(self, size: Any) -> Any:
        """A symbolic size in terms of the inputs' sizes; None for a plain number."""
        if isinstance(size, int):
            return None
        expression = size.node.expr
        return None if expression.is_number else self._renamed(expression)

    def _bind(self, result: Any, node: fx.Node) -> None:
        if isinstance(result, Tensor):
            self._bind_tensor(result, node)
        elif isinstance(result, (tuple, list)):
            for index, part in enumerate(result):  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
                if any(True for _ in tensors_in(part)):
                    self._bind(part, self.graph.call_function(_getitem, (node, index)))

    def _bind_tensor(self, tensor: Tensor, node: fx.Node) -> None:
        self._alive.append(tensor)
        self._node_of[id(tensor)] = node
        node.meta["shape"] = tuple(_number(s) for s in tensor.shape)
        if self._symbols:
            node.meta["expressions"] = tuple(self._expression(s) for s in tensor.shape)
        node.meta["dtype"] = tensor.dtype

    def _describe(self, node: fx.Node, func: Any, args: Any, kwargs: Any) -> None:
        autocast = autocast_state()
        if autocast != self._autocast:
            node.meta["autocast"] = autocast
        is_pad = func is nn.functional.pad
        pool = pool_family(func)
        if not is_pad and pool is None and not is_conv(func):
            node.meta["fqn"] = self._stack[-1].fqn
            node.meta["source"] = _source()
            return
        name = pool or "pad"
        if not is_pad and pool is None:
            weight = args[1] if len(args) > 1 else kwargs["weight"]
            name = family(func, weight.dim())
        frames: list[Frame] = []
        for running in self._stack[1:] or self._stack:
            frames.append(Frame(running.fqn, running.call, running.inside.get(name, 0)))
            running.inside[name] = running.inside.get(name, 0) + 1
        top = self._stack[-1]
        kinds = (("conv", _ConvNd), ("pad", _PADS), ("pool", _POOLS))
        kind = next((kind for kind, classes in kinds if isinstance(top.module, classes)), None)
        node.meta["at"] = Call(tuple(frames), name, top.direct.get(name, 0), kind)
        top.direct[name] = top.direct.get(name, 0) + 1
        node.meta["owner_input"] = None if top.first is None else self._node_of.get(id(top.first))
        node.meta["symbolic"] = bool(self._symbols)
        node.meta["source"] = _source()
        node.meta["checkpoint"] = _checkpointed()


_NUMBERS = {
    "shape",
    "dtype",
    "device",
    "requires_grad",
    "is_cuda",
    "layout",
    "ndim",
    "is_leaf",
    "grad_fn",
    "names",
}
_LEAVING = {"numpy", "__array__", "tolist", "item", "__bool__", "__int__", "__float__", "__index__"}
_SILENT = {
    "dim",
    "size",
    "is_floating_point",
    "numel",
    "stride",
    "is_complex",
    "data_ptr",
    "element_size",
    "__len__",
}


def _getitem(value: Any, index: int) -> Any:
    return value[index]


def _number(size: Any) -> int:
    if not isinstance(size, int) and size.node.hint is None:
        raise RecordError(_BY_VALUES)
    return size if isinstance(size, int) else int(size.node.hint)


_BY_VALUES = "a size follows from values in a tensor (a mask, a count), not from the inputs' sizes"


def _checkpointed() -> int | None:
    """How many module calls lie between this call and a torch.utils.checkpoint around it; None if there is none."""
    frame, modules = sys._getframe(2), 0
    while frame is not None:
        if frame.f_code.co_filename.endswith(_CHECKPOINT):
            return modules
        modules += frame.f_code.co_name == "_call_impl"
        frame = frame.f_back
    return None


_CHECKPOINT = os.path.join("torch", "utils", "checkpoint.py")


def _source() -> Source | None:
    """The innermost line of the model that makes this call; None if torch's layers alone do, as in an nn.Sequential."""
    return first_outside(_lines_outwards(sys._getframe(2)))  # pyright: ignore[reportPrivateUsage]


def _lines_outwards(frame: FrameType | None) -> Iterator[tuple[str, int]]:
    """File and line of a frame and of those that called it, up to the call of the model."""
    while frame is not None and frame.f_code is not Recorder.call.__code__:
        yield frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
