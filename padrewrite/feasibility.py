"""Whether, and in which of five ways, a decided rewrite can be written into the user's modules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn
from torch.nn.modules import conv as torch_conv

from padrewrite.edits import ATTACH, REBIND, REDIRECT, REPLACE, RETUNE, Edit
from padrewrite.graph import Graph, PoolSite, Site
from padrewrite.nn.assembled import AttachedMixin
from padrewrite.nn.axis_padding import AxisPaddedMixin
from padrewrite.nn.partial import PartialConvMixin
from padrewrite.nn.symmetric import SymmetricConvMixin
from padrewrite.ops.assembly import Assembly, Attached
from padrewrite.ops.conv import Conv, TransposedConv, own_padding
from padrewrite.ops.pool import Pool
from padrewrite.ops.realise import realise
from padrewrite.replacing import CODES as REPLACING
from padrewrite.replacing import Modules, inside_another, norm_elsewhere, read_elsewhere, replaced
from padrewrite.rewriting import Check

CODES = {
    "unsupported-call": "the convolution is made by a call that nothing can stand in for",
    "shared-module": "other calls of the same module, or of a batch norm that goes with it, would not go along",
    "own-forward": "the module's class has a forward of its own and no inputs were given to see what it does",
    "ambiguous-call": "its computed weight does not tell it from another call that is not rewritten alike",
    "under-checkpoint": "torch.utils.checkpoint runs the call again where nothing would redirect it",
    "own-init-subclass": "the module's class decides about its subclasses, and the rewrite needs one",
    "instance-forward": "forward is set on the instance, where a class cannot reach it",
    **REPLACING,
}


def feasible(
    modules: Modules, site: Site | PoolSite, after: Conv | Pool | Assembly | Attached, first: Edit | None = None
) -> Edit | Check:
    """The edit that writes ``after``, or the check that fails.

    ``first`` is the edit that the site has already: the new one goes from what it was before that.
    """
    if first is not None:
        site = first.site
        if isinstance(first.after, Attached):
            if not isinstance(after, Conv):
                return Check("refined", False, f"{first.below} hangs on it; replace it first, then refine")
            after = replace(first.after, op=after)
    if isinstance(after, Assembly):
        assert isinstance(site, Site)
        return inside_another(modules, site) or replaced(modules, site, after)
    if isinstance(after, Attached):
        return _attached(modules, site, after)
    return _changed(modules, site, after)


def _attached(modules: Modules, site: Site | PoolSite, after: Attached) -> Edit | Check:
    """The edit that gives a layer a child behind it, and the layer itself its new numbers if it gets any."""
    call = site.handle.call
    module = modules.get_submodule(site.fqn)
    if call.owner_kind != "conv" or call.direct != 0 or not has_stock_forward(module):
        return Check("not-a-layer", False, "the call is not one that a convolution layer makes by its own forward")
    if _minds_subclasses(type(module)):
        return Check("own-init-subclass", False, f"{type(module).__name__} has its own __init_subclass__")
    held = isinstance(module, AttachedMixin)
    taken = None if held else next((name for name in ("attached", after.name) if hasattr(module, name)), None)
    if taken is not None:
        return Check("taken-name", False, f"it has an attribute {taken}, which is needed for the refinement; rename it")
    assert isinstance(site.op, Conv)
    edit = Edit(site, site.op, after, ATTACH, site.fqn)
    if after.op == site.op:
        return edit
    inner = _changed(modules, site, after.op)
    if isinstance(inner, Edit) and inner.way == REDIRECT:
        return Check("not-a-layer", False, "the call is redirected by another rewrite, so no layer makes it")
    return inner if isinstance(inner, Check) else replace(edit, explicit=inner.explicit)


def _changed(model: Modules, site: Site | PoolSite, after: Conv | Pool) -> Edit | Check:
    """The edit that changes the numbers of a call."""
    if isinstance(after, Pool) or isinstance(site, PoolSite):
        return _redirected(model, site, after)
    assert isinstance(site.op, Conv)
    if not site.handle.plain:
        return Check("unsupported-call", False, "it is made by torch.convolution or an aten call; use F.convNd")
    module = model.get_submodule(site.fqn)
    handle = site.handle
    direct = handle.call.owner_kind == "conv" and handle.call.direct == 0
    if direct and has_stock_forward(module) and handle.pads_fixed:
        # Pads that the layer's own forward makes (for its padding_mode) are not explicit: the layer will not make them.
        own = [pad.owner == handle.call.owner or pad.owner.fqn == site.fqn for pad in handle.pads]
        explicit = tuple(amount for amount, mine in zip(handle.amounts, own) if not mine)
        change = realise(after, explicit)
        if not change.bypass:
            way = _way(module, after, change.own)
            if way == REBIND and _minds_subclasses(type(module)):
                return Check("own-init-subclass", False, f"{type(module).__name__} has its own __init_subclass__")
            return Edit(site, site.op, after, way, site.fqn, explicit)
    if site.input_shape is None and not has_stock_forward(module):
        return Check("own-forward", False, f"{type(module).__name__} has its own forward; give example_inputs")
    if handle.ours is not None and not _is_redirected(model, site):
        reason = f"it is a call of {handle.ours}, which nothing stands in for; give it options, or use padrewrite.nn"
        return Check("unsupported-call", False, reason)
    return _redirected(model, site, after)


def _is_redirected(model: Modules, site: Site) -> bool:
    """Whether the call is ours because a rewrite put it there, which another one can take the place of."""
    owners = [model.get_submodule(frame.fqn) for frame in site.handle.call.frames]
    return any(change.site == site.id for owner in owners for change in getattr(owner, "_padrewrite_changes", ()))


def _redirected(model: Modules, site: Site | PoolSite, after: Conv | Pool) -> Edit | Check:
    """The edit that redirects the call inside the forward of the innermost module that makes it."""
    handle = site.handle
    owner = _common_owner(site)
    depth = [f.fqn for f in reversed(handle.call.frames)].index(owner) + 1
    if handle.checkpoint is not None and depth > handle.checkpoint:
        return Check("under-checkpoint", False, f"torch.utils.checkpoint runs it again outside {owner or 'the model'}")
    if _minds_subclasses(type(model.get_submodule(owner))):
        return Check("own-init-subclass", False, f"{owner or 'the model'} has a class with its own __init_subclass__")
    if "forward" in vars(model.get_submodule(owner)):
        return Check(
            "instance-forward",
            False,
            f"{owner or 'the model'}.forward is set on the instance; set it on the class",
        )
    assert not isinstance(site.op, TransposedConv)
    return Edit(site, site.op, after, REDIRECT, owner, handle.amounts)


def conflicts(graph: Graph, edits: Sequence[Edit]) -> dict[str, Check]:
    """Sites of modules called several times whose calls would not all be rewritten alike."""
    by_id = {edit.site.id: edit for edit in edits}
    places: dict[tuple[object, ...], list[Site | PoolSite]] = {}
    for site in (*graph.convs(), *graph.pools.values()):
        places.setdefault(_place(site), []).append(site)
    refused: dict[str, Check] = {}
    for edit in edits:
        others = (s for s in places[_place(edit.site)] if s.id != edit.site.id)
        other = next((s for s in others if not _alike(edit, by_id.get(s.id))), None)
        twin = _twin(edit, graph, by_id)
        reader = read_elsewhere(graph, edit) or norm_elsewhere(graph, edit, edits) if edit.way == REPLACE else None
        if reader is not None:
            refused[edit.site.id] = reader
        elif twin is not None:
            reason = f"both it and {twin.id} compute their weights alike; select both, or neither"
            refused[edit.site.id] = Check("ambiguous-call", False, reason)
        elif other is not None:
            reason = (
                f"{other.id} is the same module and would not be rewritten alike; "
                "select both, or give each call its own layer"
            )
            refused[edit.site.id] = Check("shared-module", False, reason)
    return refused


def has_stock_forward(module: nn.Module) -> bool:
    """True if calling the convolution module runs torch's forward and ``_conv_forward`` (or ours)."""
    if "forward" in vars(module) or "_conv_forward" in vars(module):
        return False
    return all(_is_known(type(module), name) for name in ("forward", "_conv_forward"))


def _minds_subclasses(cls: type) -> bool:
    """True if a class in the user's code has its own ``__init_subclass__``, which may refuse ours or act on it."""
    return any("__init_subclass__" in vars(c) for c in cls.__mro__ if c is not object and c.__module__ != "typing")


def _is_known(cls: type, method: str) -> bool:
    owner = next((c for c in cls.__mro__ if method in vars(c)), None)
    return owner in (*_PADDED, AttachedMixin) or getattr(owner, "__module__", "") == torch_conv.__name__


_PADDED = (PartialConvMixin, AxisPaddedMixin, SymmetricConvMixin)


def _way(module: nn.Module, after: Conv, own: Conv) -> str:
    """How a layer becomes ``after``, of which it applies ``own`` itself: torch's class takes one mode and even padding,
    and uneven padding only where that is what "same" means."""
    rewritten = isinstance(module, _PADDED)
    one_mode = len({after.modes[a] for a in after.padded_axes}) <= 1
    zeros = {after.modes[a] for a in after.padded_axes} <= {"zeros"}
    said = getattr(module, "padding", None)
    by_name = isinstance(said, str) and own_padding(said, own.kernel, own.dilation) == own.padding
    lopsided = any(lo != hi for lo, hi in after.padding) and not by_name
    plain = after.partial is None and after.symmetric is None and one_mode and not (zeros and lopsided)
    return RETUNE if plain and not rewritten else REBIND


def _common_owner(site: Site | PoolSite) -> str:
    """The innermost module call that contains the convolution and its explicit pads."""
    common = [(f.fqn, f.call) for f in site.handle.call.frames]
    for pad in site.handle.pads:
        theirs = {(f.fqn, f.call) for f in pad.frames}
        common = [f for f in common if f in theirs]
    return common[-1][0]


def _twin(edit: Edit, graph: Graph, by_id: dict[str, Edit]) -> Site | None:
    """Another call that a redirection could take for this one, because no parameter tells them apart."""
    if edit.way != REDIRECT or edit.site.handle.weight is not None or not isinstance(edit.before, Conv):
        return None
    call, mine = edit.site.handle.call, (edit.before.kernel, edit.before.stride, edit.before.dilation)
    for site in graph.convs():
        theirs = site.handle.call
        around = any(f.fqn == edit.owner for f in theirs.frames) and theirs.family == call.family
        if site.id == edit.site.id or not around or site.handle.weight is not None or not isinstance(site.op, Conv):
            continue
        if (site.op.kernel, site.op.stride, site.op.dilation) == mine and not _alike(edit, by_id.get(site.id)):
            return site
    return None


def _place(site: Site | PoolSite) -> tuple[object, ...]:
    """The same for every call that one line of a module's forward makes, however often the module is called."""
    call = site.handle.call
    return site.fqn, call.family, call.direct, call.owner_kind


def _alike(edit: Edit, other: Edit | None) -> bool:
    if other is None:
        return False
    if not (isinstance(edit.after, Conv) and isinstance(other.after, Conv)):
        return (edit.owner, edit.after, edit.explicit) == (other.owner, other.after, other.explicit)
    return (edit.way, edit.owner, edit.change) == (other.way, other.owner, other.change)
