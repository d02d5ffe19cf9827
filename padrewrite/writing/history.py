"""What was done to a model, carried by the model itself: it survives copies and pickles."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from padrewrite.plans import Plan

_ATTRIBUTE = "_padrewrite"


@dataclass(frozen=True)
class Applied:
    """The plans applied to a model, oldest first, and what the last verification found."""

    plans: tuple[Plan, ...]
    verification: Any = None


def history(model: nn.Module) -> Applied | None:
    """What was applied to this very model; None if nothing was."""
    return vars(model).get(_ATTRIBUTE)


def add_plan(model: nn.Module, plan: Plan) -> None:
    """Notes an applied plan, without its graphs, inputs and weights."""
    earlier = history(model)
    edits = tuple(replace(edit, _carried=None) for edit in plan.edits)
    lean = replace(plan, edits=edits, _graph=None, _predicted=None, _inputs=None)
    vars(model)[_ATTRIBUTE] = Applied((*(earlier.plans if earlier else ()), lean))


def note_verification(model: nn.Module, verification: Any) -> None:
    done = history(model)
    if done is not None:
        vars(model)[_ATTRIBUTE] = replace(done, verification=verification)


def forget(model: nn.Module) -> None:
    vars(model).pop(_ATTRIBUTE, None)
