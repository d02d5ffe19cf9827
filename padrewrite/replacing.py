"""Whether a layer can be replaced by one with other parameters, or given a child, and what carrying weights loses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch.fx as fx
import torch.nn.functional as F
from torch import Tensor, nn

from padrewrite.analyses.costs import parameters_of
from padrewrite.edits import REPLACE, Edit
from padrewrite.graph import Graph, Site
from padrewrite.nn.assembled import Assembled
from padrewrite.nn.axis_padding import AxisPaddedConv1d, AxisPaddedConv2d, AxisPaddedConv3d
from padrewrite.nn.large import layer_of
from padrewrite.nn.partial import PartialConv1d, PartialConv2d, PartialConv3d
from padrewrite.ops.assembly import Assembly
from padrewrite.ops.carrying import Carried, carry_over, settled
from padrewrite.ops.conv import Conv
from padrewrite.ops.realise import ExplicitPad, added
from padrewrite.rewriting import Check

CODES = {
    "not-a-layer": "only a call that a convolution layer makes itself can be replaced or get a layer behind it",
    "refined": "a refinement hangs on it, and would hang on nothing; replace it first, then refine",
    "inside-another": "it is a part of a layer that stands for another convolution, or refines one",
    "own-class": "only torch's own convolution classes can be replaced; what a subclass adds would be lost",
    "root-layer": "the model is itself this convolution, and has no parent to put another layer into",
    "computed-weight": "its weight is computed from other tensors, so there is no weight to carry over",
    "tied-weight": "its weight belongs to another module, too, or is read by another call",
    "state-hooks": "hooks on its state dict would meet other keys; or a batch norm that goes with it has hooks",
    "parameter-hooks": "hooks on its parameters would stay behind on the old ones",
    "taken-name": "it has an attribute with a name that the new layer needs for itself",
    "no-values": "its weight is on meta, sharded, or not real numbers: there is nothing to carry over",
    "padded-outside": "explicit pads before it cannot be divided between the new layers",
    "costs-more": "it would not have fewer parameters and fewer multiply-accumulates",
    "inexact": "carrying its weight over loses more than max_error",
}

_STOCK = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, PartialConv1d, PartialConv2d, PartialConv3d),
    *(AxisPaddedConv1d, AxisPaddedConv2d, AxisPaddedConv3d),
)
_STATE_HOOKS = (
    *("_state_dict_hooks", "_state_dict_pre_hooks"),
    *("_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"),
)
_TENSOR_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


_CALL_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class Modules(Protocol):
    """Where layers are found by name: a model, or one with planned layers in it."""

    def get_submodule(self, target: str) -> nn.Module: ...
    def named_modules(self) -> Iterable[tuple[str, nn.Module]]: ...


class Planned:
    """A model's modules as they will be: planned layers stand in the place of the old ones. It changes nothing."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._new: dict[str, nn.Module] = {}

    def add(self, edits: Iterable[Edit]) -> None:
        """Plans the layers of edits, on meta."""
        for edit in edits:
            if edit.assembly is not None:
                self._new[edit.below] = layer_of(edit.assembly, None, "meta")

    def get_submodule(self, target: str) -> nn.Module:
        fqn, rest = target, ""
        while fqn:
            if fqn in self._new:
                return self._new[fqn].get_submodule(rest)
            fqn, _, last = fqn.rpartition(".")
            rest = f"{last}.{rest}".removesuffix(".")
        return self._model.get_submodule(target)

    def named_modules(self) -> Iterable[tuple[str, nn.Module]]:
        return self._model.named_modules()


def replaced(modules: Modules, site: Site, after: Assembly) -> Edit | Check:
    """The edit that puts the layer of ``after`` in the place of a site's, settled and measured; or what fails."""
    module: Any = modules.get_submodule(site.fqn)
    if isinstance(site.op, Conv) and site.op.symmetric is not None:
        return Check("own-class", False, "its channels are read from several sides; put the pass before symmetric-even")
    failed = _not_replaceable(modules, site, module) or _name_taken(module, after)
    failed = failed or _not_carried(module, after) or _not_droppable(modules, after)
    if failed is not None:
        return failed
    assert isinstance(site.op, Conv)
    pads = site.handle.amounts if site.handle.call.owner_kind == "conv" else ()
    explicit = tuple(p for p, pad in zip(pads, site.handle.pads) if pad.owner.fqn != site.fqn)
    if not site.handle.pads_fixed or not _divides(after, explicit):
        return Check("padded-outside", False, "explicit pads before it cannot be divided between the new layers")
    if after.carry is not None:
        after = settled(site.op, after, module.weight)
    failed = _not_cheaper(site, after)
    if failed is not None:
        return failed
    edit = Edit(site, site.op, after, REPLACE, site.fqn, explicit)
    return edit if after.carry is None else measured(edit, carry_over(site.op, after, module.weight, module.bias))


def inside_another(modules: Modules, site: Site) -> Check | None:
    """The refusal of what is a part of an assembly: that one's checkpoints, checks and way back know its own parts."""
    parents = site.fqn.split(".")[:-1]
    for depth in range(len(parents) + 1):
        fqn = ".".join(parents[:depth])
        layer = modules.get_submodule(fqn)
        if isinstance(layer, Assembled):
            where = f"{fqn or 'the model'}, a {type(layer).__name__}"
            return Check("inside-another", False, f"it is a part of {where}, which stands for one layer")
    return None


def measured(edit: Edit, carried: Carried) -> Edit | Check:
    """The edit with the bound that its contract states; or the refusal of more than ``max_error``."""
    assert edit.assembly is not None
    carry = edit.assembly.carry
    limit = carry.max_error if carry is not None else None
    if limit is not None and carried.bound > limit:
        return Check("inexact", False, f"{told(carried)}; max_error is {limit:g}")
    bound = carried.bound if carry is None or carry.promised else None
    return replace(edit, bound=bound, _carried=carried)


def told(carried: Carried, promised: bool = True) -> str:
    """The errors as a clause; of weights that promise nothing, also what they need."""
    weight, output = f"{carried.error:.2g} of the weight", f"{carried.output_error:.2g} of the output on white noise"
    return f"relative error {weight}, {output}{'' if promised else ': fine-tune'}"


def _not_replaceable(modules: Modules, site: Site, module: Any) -> Check | None:
    call = site.handle.call
    if call.owner_kind != "conv" or call.direct != 0 or "forward" in vars(module) or "_conv_forward" in vars(module):
        return Check("not-a-layer", False, "the call is not one that a convolution layer makes by its own forward")
    if not site.fqn:
        return Check("root-layer", False, "the model is itself this convolution; put it into an nn.Sequential")
    if type(module) not in _STOCK:
        return Check("own-class", False, f"its class is {type(module).__name__}, not torch's own")
    names = {"weight", "bias"} if module.bias is not None else {"weight"}
    if {n for n, p in module._parameters.items() if p is not None} != names or module._buffers or module._modules:
        return Check("computed-weight", False, "its weight is computed by a hook from other tensors")
    hooked = next((name for name in _STATE_HOOKS if vars(module).get(name)), None)
    if hooked is not None:
        return Check("state-hooks", False, f"it has hooks on its state dict ({hooked.strip('_')}), which know its keys")
    hooked = next((n for n, p in module.named_parameters() if any(getattr(p, kind) for kind in _TENSOR_HOOKS)), None)
    if hooked is not None:
        return Check("parameter-hooks", False, f"its {hooked} has hooks, which the new parameters would not have")
    owners = [name for name, other in modules.named_modules() if other is not module and _shares(other, module)]
    if owners:
        return Check("tied-weight", False, f"{owners[0] or 'the model'} has the same parameter; untie them first")
    return None


def own_attributes(module: nn.Module) -> list[str]:
    """Names of what a user has set on a stock convolution."""
    kind: Any = type(module)
    stock = vars(kind(1, 1, 1, device="meta"))
    return [name for name in vars(module) if name not in stock and not name.startswith("_padrewrite")]


def _name_taken(module: nn.Module, after: Assembly) -> Check | None:
    """Attributes of a user's go on to the new layer, where they must not stand for its own."""
    names = own_attributes(module)
    new = layer_of(after, None, "meta") if names else None
    taken = next((name for name in names if hasattr(new, name)), None)
    if taken is None:
        return None
    return Check("taken-name", False, f"it has an attribute {taken}, which the new layer needs for itself; rename it")


def _shares(other: nn.Module, module: nn.Module) -> bool:
    own = {id(p) for p in module._parameters.values() if p is not None}
    return any(id(p) in own for p in other._parameters.values() if p is not None)


def _not_carried(module: Any, after: Assembly) -> Check | None:
    if after.carry is None:
        return None
    weight: Tensor = module.weight
    kinds = {
        "on meta": weight.is_meta,
        "sharded": hasattr(weight, "full_tensor"),
        str(weight.dtype).removeprefix("torch."): not weight.is_floating_point(),
    }
    what = next((kind for kind, found in kinds.items() if found), None)
    if what is None and not bool(weight.isfinite().all()):
        what = "not finite everywhere"
    return None if what is None else Check("no-values", False, f"its weight is {what}: nothing can be carried over")


def _not_droppable(modules: Modules, after: Assembly) -> Check | None:
    """Of the batch norms that go with it: only torch's own, without hooks that would see something else."""
    for fqn in after.drops:
        module: Any = modules.get_submodule(fqn)
        if type(module) not in _NORMS or module.momentum is None or not module.track_running_stats:
            return Check("own-class", False, f"{fqn} is no batch norm as torch makes it by default")
        places = [f"{parent}.{name}" for parent, m in modules.named_modules() for name in _names(m, module)]
        if len(places) > 1:
            told = " and ".join(place.removeprefix(".") for place in places)
            return Check("shared-module", False, f"{told} are one batch norm, which would go; give each its own")
        hooked = next((name for name in (*_STATE_HOOKS, *_CALL_HOOKS) if vars(module).get(name)), None)
        if hooked is not None:
            return Check("state-hooks", False, f"{fqn} would go, and has hooks ({hooked.strip('_')})")
    return None


def _names(parent: nn.Module, child: nn.Module) -> list[str]:
    return [name for name, module in parent._modules.items() if module is child]


def _divides(after: Assembly, pads: tuple[ExplicitPad, ...]) -> bool:
    """Whether each new layer can leave to the pads what they add on its axis, in its own mode, and pad the rest."""
    if not pads:
        return True
    total = added(pads)
    padded = [(conv, axis) for conv in after.convs.values() for axis in conv.padded_axes if any(total[axis])]
    alike = all(pad.mode == conv.modes[axis] for conv, axis in padded for pad in pads if any(pad.amounts[axis]))
    return alike and all(conv.partial is None for conv in after.convs.values()) and after.behind(total) is not None


def _not_cheaper(site: Site, after: Assembly) -> Check | None:
    if not after.cheaper:
        return None
    assert isinstance(site.op, Conv)
    dense = replace(after.dense(site.op), bias=site.op.bias)
    old, new = parameters_of(dense), after.parameters
    if new >= old:
        return Check("costs-more", False, f"{old:,} parameters would become {new:,}", "kept")
    if site.input_shape is not None:
        sizes = site.input_shape[-site.op.window.rank :]
        old, new = dense.macs(sizes), after.macs(sizes)
        if new >= old:
            return Check("costs-more", False, f"{old:,} multiply-accumulates would become {new:,}", "kept")
    return None


def read_elsewhere(graph: Graph, edit: Edit) -> Check | None:
    """The refusal if a call other than the layer's own reads one of its parameters, which would be gone."""
    calls = {graph.node_of(site.id) for site in graph.convs() if site.fqn == edit.owner} if graph.nodes else set()
    for node in graph.nodes.find_nodes(op="get_attr") if graph.nodes is not None else ():
        own = str(node.target).rpartition(".")[0] == edit.owner
        other = next((user for user in node.users if user not in calls), None) if own else None
        if other is not None:
            where = other.meta.get("fqn") or other.meta.get("source") or "another call"
            return Check("tied-weight", False, f"{node.target} is also read in {where}")
    return None


def norm_elsewhere(graph: Graph, edit: Edit, edits: Sequence[Edit]) -> Check | None:
    """The refusal if a batch norm that goes with the layer has a call, or a reader, other than behind such layers."""
    for fqn in edit.assembly.drops if edit.assembly is not None else ():
        dropped = (e.site.id for e in edits if e.assembly is not None and fqn in e.assembly.drops)
        convs = {graph.node_of(site) for site in dropped}
        other = next((call for call in _uses(graph, fqn) if not call.args or call.args[0] not in convs), None)
        if other is not None:
            where = other.meta.get("source") or other.meta.get("fqn") or "another call"
            reason = f"{fqn}, which would go, is also used in {where}; give that call a batch norm of its own"
            return Check("shared-module", False, reason)
    return None


def _uses(graph: Graph, norm: str) -> Iterator[fx.Node]:
    """The calls of a batch norm, and those that read one of its tensors elsewhere."""
    for node in graph.nodes.nodes if graph.nodes is not None else ():
        own = node.meta.get("fqn") == norm
        read = any(n.op == "get_attr" and str(n.target).rpartition(".")[0] == norm for n in node.all_input_nodes)
        if node.target is F.batch_norm if own else read:
            yield node
