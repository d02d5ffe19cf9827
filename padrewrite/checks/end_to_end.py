"""The whole model in float64: the rewritten one against the original with each rewritten site computed naively.

The interior (outputs that no padding of a rewritten site can reach) is found by running the original with NaN in
place of that padding: what stays a number is interior.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import torch.fx as fx
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from padrewrite.checks.compare import Comparison
from padrewrite.checks.sites import naive, reference_pool
from padrewrite.contracts import Evidence
from padrewrite.edits import Edit
from padrewrite.graph import Graph
from padrewrite.ops.assembly import Assembly, Attached
from padrewrite.ops.conv import Conv
from padrewrite.ops.pool import Pool, read_pool
from padrewrite.ops.realise import behind_pads
from padrewrite.recording.execute import execute, state_of
from padrewrite.recording.inputs import Inputs
from padrewrite.recording.preserve import preserved
from padrewrite.recording.tensors import tensors_in
from padrewrite.recording.trace import trace

WHERE = "end to end"


def check_end_to_end(
    new: nn.Module, original: nn.Module, edits: Sequence[Edit], inputs: Inputs, tolerance: float
) -> tuple[list[Evidence], tuple[str, ...]]:
    """Evidence for outputs, gradients and interior; notes say what could not be checked."""
    # Where sizes or layers change, the original's recording does not know the new ones: the rewritten model's own does.
    changed = any(edit.resizes or edit.assembly is not None for edit in edits)
    traced = new if changed else original
    graph = trace(traced, inputs, symbolic=False)
    state = {k: _double(v) for k, v in state_of(traced, graph.constants).items()}
    ours = {k: _double(v) for k, v in state_of(new, {}).items()}
    wanted = _Reference(graph, _by_site(graph, edits, "after"))
    try:
        evidence = [_outputs_and_gradients(new, graph, wanted, ours, state, inputs, tolerance)]
        # A window that changed (contracts shape and grid) computes something else in the interior, too.
        if all(edit.keeps_interior for edit in edits):
            evidence.append(_interior(new, graph, edits, ours, state, inputs, tolerance))
        notes = _against_original(new, original, edits, ours, inputs, tolerance, evidence)
    except RuntimeError as error:
        return [], (f"end to end was not checked: the model does not run in float64 ({str(error).splitlines()[0]})",)
    if graph.reads_values and not all(e.ok for e in evidence):
        # The reference repeats the numbers that were read while recording; a rewritten model reads others.
        return [], ("end to end was not checked: the forward computes with numbers that it reads out of tensors",)
    return evidence, notes


def _against_original(
    new: nn.Module,
    original: nn.Module,
    edits: Sequence[Edit],
    ours: dict[str, Tensor],
    inputs: Inputs,
    tolerance: float,
    evidence: list[Evidence],
) -> tuple[str, ...]:
    """Adds the evidence that layers attached as the identity change nothing; tells what carrying weights changes."""
    attached = all(isinstance(edit.after, Attached) and edit.after.op == edit.before for edit in edits)
    bounded = any(edit.bound is not None for edit in edits)
    if not attached and not bounded:
        return ()
    theirs = {k: _double(v) for k, v in state_of(original, {}).items()}
    with torch.no_grad():
        got, wanted = (_run_new(m, s, inputs.double()) for m, s in ((new, ours), (original, theirs)))
    if attached:
        zero = tuple(f"{edit.below}.{name}." for edit in edits for name in _zero(edit))
        untrained = not any(t.any() for name, t in ours.items() if name.startswith(zero))
        found = Comparison(tolerance)
        for a, b in zip(got, wanted, strict=True) if untrained else ():
            found.add(_real(a), _real(b))
        evidence.append(found.evidence(WHERE, "exact"))
        return ()
    size = sum(float(_real(b).square().sum()) for b in wanted) or 1.0
    off = sum(float((_real(a) - _real(b)).square().sum()) for a, b in zip(got, wanted, strict=True))
    return (f"end to end the outputs differ from the original's by a relative error of {(off / size) ** 0.5:.2g}",)


def _zero(edit: Edit) -> tuple[str, ...]:
    return edit.assembly.zero if edit.assembly is not None else ()


def _by_site(graph: Graph, edits: Sequence[Edit], which: str) -> dict[str, tuple[Conv | Pool, int]]:
    """Per site of the graph: the op it has, and how many of the explicit pads before it are in that op.

    An edit made without inputs is about a layer as it stands: every call of it, on whatever the call is given.
    """
    ops: dict[str, tuple[Conv | Pool, int]] = {}
    for edit in edits:
        op = getattr(edit, which)
        if isinstance(op, (Assembly, Attached)):
            ops |= _parts(graph, edit)
            op = op.op if isinstance(op, Attached) else None
        if isinstance(op, Pool):
            if edit.site.id in graph.pools:
                ops[edit.site.id] = (op, 0)
        elif isinstance(op, Conv) and edit.site.input_shape is not None:
            ops[edit.site.id] = (op, len(graph.pads_of(edit.site.id)))
        elif isinstance(op, Conv):
            ops |= {site: (op, _own(graph, site)) for site in _calls_of(graph, edit.site.fqn)}
    return ops


def _parts(graph: Graph, edit: Edit) -> dict[str, tuple[Conv | Pool, int]]:
    """The convolutions of what replaces a layer or is attached to it, behind the pads that stay."""
    assert edit.assembly is not None
    assembly = edit.assembly if isinstance(edit.after, Attached) else behind_pads(edit.assembly, edit.explicit)
    assert isinstance(assembly, Assembly)
    convs = {f"{edit.below}.{name}": conv for name, conv in assembly.convs.items()}
    return {site: (op, _own(graph, site)) for fqn, op in convs.items() for site in _calls_of(graph, fqn)}


def _own(graph: Graph, site: str) -> int:
    return graph.conv_nodes[site].own_pads


def _calls_of(graph: Graph, fqn: str) -> list[str]:
    """The calls that a convolution module makes itself."""
    own = [s for s in graph.convs() if s.fqn == fqn and s.handle.call.owner_kind == "conv"]
    return [site.id for site in own if site.handle.call.direct == 0]


class _Reference:
    """Override for ``execute``: chosen sites by the naive reference, which reads what their explicit pads read."""

    def __init__(self, graph: Graph, ops: Mapping[str, tuple[Conv | Pool, int]], poison: bool = False) -> None:
        convs = {site: op for site, (op, _) in ops.items() if isinstance(op, Conv)}
        self._sites = {graph.node_of(site): (site, op) for site, op in convs.items()}
        self._pools = {graph.pool_nodes[site]: op for site, (op, _) in ops.items() if isinstance(op, Pool)}
        pads = {site: graph.pads_of(site)[:folded] for site, (_, folded) in ops.items() if folded}
        self._first_pad = {site: found[-1] for site, found in pads.items() if found}
        self._unpadded: dict[fx.Node, Any] = dict.fromkeys(self._first_pad.values())
        self._graph = graph
        self._poison = poison

    def __call__(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if node in self._unpadded:
            self._unpadded[node] = args[0] if args else kwargs["input"]
            return NotImplemented
        if node in self._pools and _spelled_out(self._pools[node], node):
            return reference_pool(self._pools[node], args[0] if args else kwargs["input"])
        if node not in self._sites:
            return NotImplemented
        site, op = self._sites[node]
        x, weight, bias = self._graph.operands_of(site, args, kwargs)
        x = self._unpadded[self._first_pad[site]] if site in self._first_pad else x
        if self._poison:
            return _poisoned(op, x, weight, bias)
        batched = x if x.dim() == op.window.rank + 2 else x.unsqueeze(0)
        out = naive(op, batched, weight, bias)
        return out if x.dim() == op.window.rank + 2 else out.squeeze(0)


def _spelled_out(op: Pool, node: fx.Node) -> bool:
    """Whether the recorded call is the whole op; where pads before it are part of the op, it is left as recorded."""
    call = read_pool(node.target, node.args, dict(node.kwargs))
    return call is not None and call.op == op


def _poisoned(op: Conv, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution with NaN for padding."""
    flat = [v for pair in reversed(op.padding) for v in pair]
    conv: Any = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[op.window.rank]
    padded = F.pad(x, flat, value=float("nan"))
    if op.symmetric is not None:  # NaN wherever some block of channels sees padding
        weight = torch.ones((*weight.shape[:2], *op.reach.kernel), dtype=weight.dtype, device=weight.device)
    return conv(padded, weight, bias, op.stride, 0, op.dilation, op.groups)


def _outputs_and_gradients(
    new: nn.Module,
    graph: Graph,
    reference: _Reference,
    ours: dict[str, Tensor],
    state: dict[str, Tensor],
    inputs: Inputs,
    tolerance: float,
) -> Evidence:
    found = Comparison(tolerance)
    results: list[tuple[list[Tensor], list[Tensor]]] = []
    for run in (lambda i: _run_new(new, ours, i), lambda i: _run_graph(graph, state, i, reference)):
        fresh = inputs.double()
        leaves = [t.requires_grad_() for t in fresh.tensors if t.is_floating_point()]
        with torch.enable_grad():
            outputs = run(fresh)
            results.append((outputs, _gradients(outputs, leaves)))
    for got, wanted in zip(results[0][0], results[1][0], strict=True):
        found.add(_real(got), _real(wanted))
    for got, wanted in zip(results[0][1], results[1][1], strict=True):
        found.add(got, wanted)
    return found.evidence(WHERE, "reference", "outputs and input gradients")


def _gradients(outputs: Sequence[Tensor], leaves: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of a fixed weighted sum of all outputs."""
    total = torch.zeros((), dtype=torch.float64)
    for output in outputs:
        if output.requires_grad and output.is_floating_point():
            weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype, device=output.device)
            total = total + (output * weights.reshape(output.shape)).sum().cpu()
    if not total.requires_grad:
        return []
    found = torch.autograd.grad(total, leaves, allow_unused=True)
    return [
        torch.zeros_like(leaf) if g is None else g for g, leaf in zip(cast("Sequence[Tensor | None]", found), leaves)
    ]


def _interior(
    new: nn.Module,
    graph: Graph,
    edits: Sequence[Edit],
    ours: dict[str, Tensor],
    state: dict[str, Tensor],
    inputs: Inputs,
    tolerance: float,
) -> Evidence:
    poison = _Reference(graph, _by_site(graph, edits, "before"), poison=True)
    found = Comparison(tolerance)
    with torch.no_grad():
        reached = _run_graph(graph, state, inputs.double(), poison)
        old = _run_graph(graph, state, inputs.double(), None)
        fresh = _run_new(new, ours, inputs.double())
    chosen = _chosen_by_value(graph)
    for index, (mask, before, after) in enumerate(zip(reached, old, fresh, strict=True)):
        if index in chosen:
            continue
        if _real(mask).shape != _real(after).shape:
            found.add(_real(after), _real(mask))
            continue
        inside = ~_real(mask).isnan()
        found.add(_real(after)[inside], _real(before)[inside])
    return found.evidence(WHERE, "interior")


def _chosen_by_value(graph: Graph) -> set[int]:
    """Outputs that hold values picked by their order (topk, argmax): no position of theirs stays where it was."""
    assert graph.nodes is not None
    picked: set[fx.Node] = set()
    for node in graph.nodes.nodes:
        by_value = node.op == "call_function" and getattr(node.target, "__name__", "") in _PICKING
        if by_value or any(source in picked for source in node.all_input_nodes):
            picked.add(node)
    output = next(n for n in graph.nodes.nodes if n.op == "output")
    values: Any = output.args[0]
    return {index for index, value in enumerate(values) if value in picked}


_PICKING = {"topk", "sort", "argsort", "argmax", "argmin", "kthvalue", "msort", "nonzero", "unique", "masked_select"}


def _run_new(model: nn.Module, state: dict[str, Tensor], inputs: Inputs) -> list[Tensor]:
    grad = torch.is_grad_enabled()
    with preserved(model), torch.set_grad_enabled(grad):
        torch.manual_seed(0)
        copies = {k: v.clone() for k, v in state.items()}
        return list(tensors_in(functional_call(model, copies, inputs.args, inputs.kwargs)))


def _run_graph(graph: Graph, state: dict[str, Tensor], inputs: Inputs, override: Any) -> list[Tensor]:
    assert graph.nodes is not None
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        copies = {k: v.clone() for k, v in state.items()}
        return list(execute(graph.nodes, copies, inputs.tensors, override))


def _double(tensor: Tensor) -> Tensor:
    return tensor.detach().double() if tensor.is_floating_point() else tensor.detach()


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor.double()
