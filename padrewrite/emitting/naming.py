"""Names and call numbers in Dynamo's graphs: those that a recording of the whole model would give.

Dynamo names modules relative to the frame that it compiles, in ``nn_module_stack``, and counts their calls within
one graph. A forward that it cannot follow becomes several frames, and several graphs.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any

import torch.fx as fx
from torch import nn
from torch._guards import CompileContext
from torch.nn.modules.conv import _ConvNd

from padrewrite.graph import Call, Frame

Stack = list[tuple[str, str, type]]
"""(identity and call number, path, class) of the modules around a call, outermost first."""

_RESUMED = "torch_dynamo_resume_in_"


def is_split(gm: fx.GraphModule) -> bool:
    """True if Dynamo made more than one graph of the forward that ``gm`` is part of."""
    reason = getattr(gm, "compile_subgraph_reason", None)
    if reason is None:
        return False
    return bool(reason.graph_break) or any(f.name.startswith(_RESUMED) for f in reason.user_stack)


def frame_id() -> Hashable:
    """Which code Dynamo is compiling: the same for each of its recompilations."""
    compile_id = CompileContext.current_compile_id()
    return None if compile_id is None else compile_id.frame_id


def stack_of(node: fx.Node) -> Stack:
    return [(key, path, kind) for key, (path, kind) in (node.meta.get("nn_module_stack") or {}).items()]


class Namer:
    """Names the calls of one model's graphs, in the order in which they are compiled."""

    def __init__(self, model: nn.Module | None) -> None:
        self._model = model
        self._modules = {} if model is None else {str(id(m)): name for name, m in model.named_modules()}
        self._parameters = {} if model is None else {id(p): name for name, p in model.named_parameters()}
        self._used: dict[Hashable, int] = {}
        self._bases: dict[Hashable, dict[Hashable, int]] = {}
        self._base: dict[Hashable, int] = {}
        self._counts: dict[Hashable, int] = {}
        self._prefixed = False
        self.root = ""
        self._root_class: type = object

    def start(self, gm: fx.GraphModule, inputs: Sequence[Any], nodes: Iterable[fx.Node]) -> None:
        """Begins a graph. Call numbers go on from graph to graph; one compiled again starts where it once did."""
        self.root = self._root(gm, inputs)
        self._root_class = object if self._model is None else type(self._model.get_submodule(self.root))
        variables = {_variable(path) for node in nodes for _, path, _ in stack_of(node)}
        self._prefixed = self._model is None and len(variables) > 1
        self._base = self._bases.setdefault(frame_id(), dict(self._used))
        self._counts = dict(self._base)

    def finish(self) -> None:
        """Ends a graph."""
        for key, count in self._counts.items():
            self._used[key] = max(self._used.get(key, 0), count)

    def place(self, node: fx.Node, family: str = "") -> Call:
        """Where a call is made. ``family`` numbers it among the convolutions of its module."""
        stack = stack_of(node)
        frames = tuple(Frame(fqn, call) for fqn, call in self._frames(stack)) or (Frame(self.root, 0),)
        kind = stack[-1][2] if stack else self._root_class
        owner_kind = "conv" if isinstance(kind, type) and issubclass(kind, _ConvNd) else None
        if not family:
            return Call(frames, family, owner_kind=owner_kind)
        for frame in frames:
            self._counts[frame.fqn] = max(self._counts.get(frame.fqn, 0), frame.call + 1)
        key = (frames[-1], family)
        direct = self._counts.get(key, 0)
        self._counts[key] = direct + 1
        return Call(frames, family, direct, owner_kind)

    def _frames(self, stack: Stack) -> Iterator[tuple[str, int]]:
        for key, path, _ in stack:
            identity, _, again = key.partition("@")
            fqn = self._modules.get(identity)
            if fqn is None:
                fqn = ".".join(filter(None, (_variable(path) if self._prefixed else self.root, _local(path))))
            # The module whose forward is compiled was called once, however many graphs it takes.
            yield fqn, int(again or 0) + (0 if fqn == self.root else self._base.get(fqn, 0))

    def _root(self, gm: fx.GraphModule, inputs: Sequence[Any]) -> str:
        """FQN of the module whose forward is compiled: what its own names lack of the model's."""
        for node in gm.graph.nodes:
            for key, path, _ in stack_of(node):
                root = _difference(self._modules.get(key.partition("@")[0]), _local(path))
                if root is not None:
                    return root
        for node, value in zip(gm.graph.find_nodes(op="placeholder"), inputs):
            source = getattr(node.meta.get("grapharg"), "source", None)
            if source is not None:
                root = _difference(self._parameters.get(id(value)), _local(source_name(source)))
                if root is not None:
                    return root
        return ""


def source_name(source: Any) -> str:
    """The expression of a Dynamo source, as in ``L['self']._modules['conv']._parameters['weight']``."""
    return str(source.name() if callable(source.name) else source.name)


def _variable(path: str) -> str:
    """``model`` in ``G['model'].layer.0``."""
    found = re.match(r"[A-Z]+\['([^']*)'\]", path)
    return found.group(1) if found else ""


def _local(path: str) -> str:
    """``layer.0`` in ``G['model'].layer.0``."""
    path = re.sub(r"\._(?:modules|parameters|buffers)\['([^']+)'\]", r".\1", path)
    return re.sub(r"^[A-Z]+\['[^']*'\]\.?", "", path)


def _difference(full: str | None, local: str) -> str | None:
    if full is None or not (full == local or not local or full.endswith("." + local)):
        return None
    return full[: len(full) - len(local)].removesuffix(".")
