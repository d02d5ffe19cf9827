"""Whether, and in which of four ways, a decided rewrite can be written into the user's modules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules import conv as torch_conv

from padrewrite.graph import Graph, Site
from padrewrite.nn.axis_padding import AxisPaddedMixin
from padrewrite.nn.partial import PartialConvMixin
from padrewrite.ops.conv import Conv
from padrewrite.ops.realise import ExplicitPad, Realisation, realise
from padrewrite.rewriting import Check

RETUNE, REBIND, REDIRECT = "retune", "rebind", "redirect"
"""Set attributes of a stock layer; swap its class; run the owner's forward under a mode that redirects the call."""

CODES = {
    "unsupported-call": "the convolution is made by a call that nothing can stand in for",
    "shared-module": "other calls of the same module would need a different rewrite",
    "own-forward": "the module's class has a forward of its own and no inputs were given to see what it does",
    "instance-forward": "forward is set on the instance, where a class cannot reach it",
}


@dataclass(frozen=True)
class Edit:
    """One site's way from ``before`` to ``after``."""

    site: Site
    before: Conv
    after: Conv
    way: str
    owner: str
    """FQN of the module that is changed."""
    explicit: tuple[ExplicitPad, ...] = ()
    """Pads in front of the changed call that stay where they are, nearest first."""

    @property
    def change(self) -> Realisation:
        """The call that has to be made instead."""
        return realise(self.after, self.explicit)


def feasible(model: nn.Module, site: Site, after: Conv) -> Edit | Check:
    """The edit that writes ``after``, or the check that fails."""
    assert isinstance(site.op, Conv)
    if not site.handle.plain:
        return Check(
            "unsupported-call", False, "it is made by torch.convolution or an aten call; use F.convNd"
        )
    module = model.get_submodule(site.fqn)
    handle = site.handle
    direct = handle.call.owner_kind == "conv" and handle.call.direct == 0
    if direct and has_stock_forward(module) and handle.pads_fixed:
        # Pads that the layer's own forward makes (for its padding_mode) are not explicit: the layer will not make them.
        own = [pad.owner == handle.call.owner or pad.owner.fqn == site.fqn for pad in handle.pads]
        explicit = tuple(amount for amount, mine in zip(handle.amounts, own) if not mine)
        if not realise(after, explicit).bypass:
            return Edit(site, site.op, after, _way(module, after), site.fqn, explicit)
    if site.input_shape is None and not has_stock_forward(module):
        return Check(
            "own-forward", False, f"{type(module).__name__} has its own forward; give example_inputs"
        )
    owner = _common_owner(site)
    if "forward" in vars(model.get_submodule(owner)):
        return Check(
            "instance-forward",
            False,
            f"{owner or 'the model'}.forward is set on the instance; set it on the class",
        )
    return Edit(site, site.op, after, REDIRECT, owner, handle.amounts)


def conflicts(graph: Graph, edits: Sequence[Edit]) -> dict[str, Check]:
    """Sites of modules called several times whose calls would not all be rewritten alike."""
    by_id = {edit.site.id: edit for edit in edits}
    places: dict[tuple[object, ...], list[Site]] = {}
    for site in graph.convs():
        places.setdefault(_place(site), []).append(site)
    refused: dict[str, Check] = {}
    for edit in edits:
        others = (s for s in places[_place(edit.site)] if s.id != edit.site.id)
        other = next((s for s in others if not _alike(edit, by_id.get(s.id))), None)
        if other is not None:
            reason = (
                f"{other.id} is the same module and would not be rewritten alike; select both or clone it"
            )
            refused[edit.site.id] = Check("shared-module", False, reason)
    return refused


def has_stock_forward(module: nn.Module) -> bool:
    """True if calling the convolution module runs torch's forward and ``_conv_forward`` (or ours)."""
    if "forward" in vars(module) or "_conv_forward" in vars(module):
        return False
    return all(_is_known(type(module), name) for name in ("forward", "_conv_forward"))


def _is_known(cls: type, method: str) -> bool:
    owner = next((c for c in cls.__mro__ if method in vars(c)), None)
    return (
        owner in (PartialConvMixin, AxisPaddedMixin)
        or getattr(owner, "__module__", "") == torch_conv.__name__
    )


def _way(module: nn.Module, after: Conv) -> str:
    rewritten = isinstance(module, (PartialConvMixin, AxisPaddedMixin))
    one_mode = len({after.modes[a] for a in after.padded_axes}) <= 1
    zeros = {after.modes[a] for a in after.padded_axes} <= {"zeros"}
    lopsided = any(lo != hi for lo, hi in after.padding) and not isinstance(getattr(module, "padding", None), str)
    plain = after.partial is None and one_mode and not (zeros and lopsided)
    return RETUNE if plain and not rewritten else REBIND


def _common_owner(site: Site) -> str:
    """The innermost module call that contains the convolution and its explicit pads."""
    common = [(f.fqn, f.call) for f in site.handle.call.frames]
    for pad in site.handle.pads:
        theirs = {(f.fqn, f.call) for f in pad.frames}
        common = [f for f in common if f in theirs]
    return common[-1][0]


def _place(site: Site) -> tuple[object, ...]:
    """The same for every call that one line of a module's forward makes, however often the module is called."""
    call = site.handle.call
    return site.fqn, call.family, call.direct, call.owner_kind


def _alike(edit: Edit, other: Edit | None) -> bool:
    if other is None:
        return False
    return (edit.way, edit.owner, edit.change) == (other.way, other.owner, other.change)
