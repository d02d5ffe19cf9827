"""Dynamo's graphs read as the project's: which module makes each call, at what sizes, from which line.

Dynamo passes parameters as inputs, names modules relative to the frame it compiles, and compiles a forward that it
cannot follow in several graphs. Here each call gets the name and call number that a recording would give it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.fx as fx
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from padrewrite.emitting.convolutions import Hidden, expanded_scale, hint_of, is_symbolic, is_written, read_with_hints
from padrewrite.emitting.legality import EXPANDED, SYMBOLIC, symbolic_padding
from padrewrite.graph import Call, Frame, Graph, Handle, Site, _site_id
from padrewrite.ops.conv import Conv, family, is_conv
from padrewrite.ops.reading import ConvNode
from padrewrite.rewriting import Check

_RESUMED = "torch_dynamo_resume_in_"
_LIBRARIES = tuple(os.path.dirname(os.path.abspath(f)) for f in (torch.__file__, os.path.dirname(__file__)))
_PADS = (F.pad, torch._C._nn.pad)
_ZERO_PADS = (nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d)


@dataclass(frozen=True)
class Part:
    """A Dynamo graph, or a graph nested in it (the body of a checkpoint, say), read."""

    owner: fx.GraphModule
    root: str
    """FQN of the module whose forward Dynamo was compiling."""
    graph: Graph
    fixed: Graph
    """Sites to decide about that are no part of ``graph``, because they have to stay as they are."""
    refusals: Mapping[str, Check]
    """Sites of either that cannot be rewritten, and why."""
    calls: int


def is_split(gm: fx.GraphModule) -> bool:
    """True if Dynamo made more than one graph of the forward that ``gm`` is part of."""
    reason = getattr(gm, "compile_subgraph_reason", None)
    if reason is None:
        return False
    return bool(reason.graph_break) or any(f.name.startswith(_RESUMED) for f in reason.user_stack)


class Reader:
    """Reads the graphs of one model, in the order in which they are compiled."""

    def __init__(self, model: nn.Module | None) -> None:
        self._model = model
        self._modules = {} if model is None else {str(id(m)): name for name, m in model.named_modules()}
        self._parameters = {} if model is None else {id(p): name for name, p in model.named_parameters()}
        self._next: dict[Hashable, int] = {}
        self._first: dict[Hashable, dict[Hashable, int]] = {}

    def read(self, gm: fx.GraphModule, inputs: Sequence[Any]) -> list[Part]:
        """``gm`` and the graphs nested in it; copies, so that nothing is changed."""
        root = self._root(gm, inputs)
        # Call numbers go on from graph to graph; a recompiled graph starts where it started the first time.
        numbers = dict(self._first.setdefault(frame_id(), dict(self._next)))
        bases = dict(numbers)
        owners = [m for m in gm.modules() if isinstance(m, fx.GraphModule)]
        variables = {_variable(path) for owner in owners for path in _paths(owner.graph)}
        prefixed = len(variables) > 1 and self._model is None
        return [self._part(owner, root, bases, numbers, prefixed) for owner in owners]

    def _part(
        self,
        owner: fx.GraphModule,
        root: str,
        bases: Mapping[Hashable, int],
        numbers: dict[Hashable, int],
        prefixed: bool,
    ) -> Part:
        nodes = fx.Graph()
        nodes.output(nodes.graph_copy(owner.graph, {}))
        fixed: dict[str, Site] = {}
        refusals: dict[str, Check] = {}
        for node in nodes.nodes:
            _describe(node)
        for node in nodes.nodes:
            if node.op == "call_function" and node.target in _PADS:
                _prepare_pad(node)
            if node.op not in ("call_function", "call_method", "call_module"):
                continue
            frames, kind = self._frames(node, root, bases, prefixed)
            node.meta["at"] = Call(frames, "", owner_kind=kind)
            if is_conv(node.target):
                node.meta["at"] = self._number(node, frames, kind, numbers)
                found = _fixed_site(node)
                if found is not None:
                    site, check = found
                    fixed[site.id], refusals[site.id] = site, check
                    node.target = Hidden(node.target)
        for key, number in numbers.items():
            self._next[key] = max(self._next.get(key, 0), number)
        graph = Graph.from_nodes(nodes, "dynamo", {})
        calls = sum(node.op.startswith("call_") for node in nodes.nodes)
        return Part(owner, root, graph, Graph(None, fixed, "dynamo"), refusals | symbolic_padding(graph), calls)

    def _frames(
        self, node: fx.Node, root: str, bases: Mapping[Hashable, int], prefixed: bool
    ) -> tuple[tuple[Frame, ...], str | None]:
        """The modules around a call, outermost first, and whether the innermost is a convolution."""
        frames: list[Frame] = []
        kind: type | None = None if self._model is None else type(self._model.get_submodule(root))
        for key, (path, kind) in (node.meta.get("nn_module_stack") or {}).items():
            ident, _, again = key.partition("@")
            fqn = self._modules.get(ident)
            if fqn is None:
                parts = ([_variable(path)] if prefixed else [root]) + [_local(path)]
                fqn = ".".join(filter(None, parts))
            frames.append(Frame(fqn, int(again or 0) + bases.get(fqn, 0)))
        is_conv_module = isinstance(kind, type) and issubclass(kind, _ConvNd)
        return tuple(frames) or (Frame(root, 0),), "conv" if is_conv_module else None

    def _number(
        self, node: fx.Node, frames: tuple[Frame, ...], kind: str | None, numbers: dict[Hashable, int]
    ) -> Call:
        weight = node.args[1] if len(node.args) > 1 else node.kwargs["weight"]
        name = family(node.target, len(weight.meta["example_value"].shape))  # pyright: ignore[reportAttributeAccessIssue,reportOptionalMemberAccess]
        for frame in frames:
            numbers[frame.fqn] = max(numbers.get(frame.fqn, 0), frame.call + 1)
        key = (frames[-1].fqn, frames[-1].call, name)
        numbers[key] = numbers.get(key, 0) + 1
        return Call(frames, name, numbers[key] - 1, kind)

    def _root(self, gm: fx.GraphModule, inputs: Sequence[Any]) -> str:
        """FQN of the module whose forward is compiled: what its own names lack of the model's."""
        for node in gm.graph.nodes:
            for key, (path, _) in (node.meta.get("nn_module_stack") or {}).items():
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


def frame_id() -> Hashable:
    """Which code Dynamo is compiling: the same number for each of its recompilations."""
    compile_id = torch._guards.CompileContext.current_compile_id()
    return None if compile_id is None else compile_id.frame_id


def source_name(source: Any) -> str:
    """The expression of a Dynamo source, as in ``L['self']._modules['conv']._parameters['weight']``."""
    name = source.name
    return str(name() if callable(name) else name)


def _paths(nodes: fx.Graph) -> list[str]:
    return [path for n in nodes.nodes for path, _ in (n.meta.get("nn_module_stack") or {}).values()]


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


def _describe(node: fx.Node) -> None:
    """Writes the meta that the recorder writes."""
    node.meta["origin"] = node.name
    value = node.meta.get("example_value")
    if isinstance(value, Tensor):
        sizes = tuple(hint_of(size) for size in value.shape)
        if None not in sizes:
            node.meta["shape"] = sizes
    elif isinstance(value, torch.SymInt):
        node.meta["value"] = hint_of(value)
    node.meta["source"] = _source(node.meta.get("stack_trace"))


def _prepare_pad(node: fx.Node) -> None:
    """Hides a pad that no convolution can take over; says what the value of the others is."""
    amounts = node.args[1] if len(node.args) > 1 else node.kwargs["pad"]
    unknown = any(isinstance(v, fx.Node) and v.meta.get("value") is None for v in amounts)  # pyright: ignore[reportGeneralTypeIssues,reportOptionalIterable]
    if unknown or is_written(node):
        node.target = Hidden(node.target)
        return
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if stack and isinstance(stack[-1][1], type) and issubclass(stack[-1][1], _ZERO_PADS) and len(node.args) > 3:
        # With dynamic=True the layer's 0.0 is an input of the graph, but its class says what it is.
        node.update_arg(3, 0.0)


def _source(trace: str | None) -> str | None:
    """file:line of the innermost frame that is neither torch's nor ours."""
    for filename, line in reversed(re.findall(r'File "([^"]+)", line (\d+)', trace or "")):
        if not filename.startswith((*_LIBRARIES, "<")):
            return f"{os.path.basename(filename)}:{line}"
    return None


def _fixed_site(node: fx.Node) -> tuple[Site, Check] | None:
    """The site of a convolution that cannot be rewritten here, and why; None if it can."""
    scale = expanded_scale(node)
    if scale is None and not is_symbolic(node):
        return None
    conv: ConvNode = read_with_hints(node)
    op = conv.op
    if scale is not None and isinstance(op, Conv):
        op = replace(op, partial=scale)
    at: Call = node.meta["at"]
    site = Site(_site_id(at), at.owner.fqn, at.owner.call, node.meta["source"], op, Handle(at))
    return site, SYMBOLIC if scale is None else EXPANDED
