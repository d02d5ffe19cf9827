"""The public functions: analyze, plan, apply, verify, revert, report; and transform, most of them in one call."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from padrewrite.analyses.analysis import Analysis
from padrewrite.analyses.building import build
from padrewrite.checks.verification import Verification
from padrewrite.checks.verification import check_model as check_contracts
from padrewrite.edits import Edit
from padrewrite.errors import ContractViolation, NewParametersWarning, PadrewriteError, PlanError, RevertError
from padrewrite.graph import Graph
from padrewrite.planning import make_plan
from padrewrite.plans import GridStage, Plan, restated
from padrewrite.predicting import check_prediction, record_edited
from padrewrite.recording.inputs import Inputs
from padrewrite.recording.models import check_model
from padrewrite.recording.trace import trace
from padrewrite.recording.tree import read_tree, tree_fingerprint
from padrewrite.registry import parse_passes
from padrewrite.reporting.reports import Report
from padrewrite.rewriting import Pass
from padrewrite.selecting import Names, Where
from padrewrite.writing.copying import copy_model
from padrewrite.writing.history import add_plan, forget, history, note_verification
from padrewrite.writing.write import snapshot, take_back, undo, write

LEVELS = ("off", "quick", "full")


def record(model: nn.Module, *, example_inputs: Any = None) -> Graph:
    """The model's graph: every torch call, executable, and every convolution call as a site.

    Args:
        model: any ``nn.Module``; it is left as it was, buffers and random state included.
        example_inputs: a tensor, a tuple of positional arguments, or a dict of keyword arguments. Without them only
            the convolution modules are read.

    Raises:
        ModelError, InputsError, RecordError.
    """
    check_model(model, "record")
    return read_tree(model) if example_inputs is None else trace(model, Inputs.of(example_inputs))


def analyze(model: nn.Module, *, example_inputs: Any = None) -> Analysis:
    """What is spatially true of a model, and what is wrong with it: exact, and without changing it.

    Args:
        model, example_inputs: as for ``record``. Without inputs only the convolutions' own windows are looked at.

    Returns:
        One record per convolution call (sizes, phase, receptive field, support, use of padding, cost), the dilated
        chains, and the findings, each with a stable code (docs/findings).

    Raises:
        ModelError, InputsError, RecordError.
    """
    check_model(model, "analyze")
    inputs = None if example_inputs is None else Inputs.of(example_inputs)
    graph = read_tree(model) if inputs is None else trace(model, inputs)
    return build(graph, type(model).__name__, None if inputs is None else str(inputs))


def plan(
    model: nn.Module,
    passes: Iterable[str | Pass],
    *,
    example_inputs: Any = None,
    include: Names = None,
    exclude: Names = None,
    where: Where = None,
    allow_no_effect: bool = False,
) -> Plan:
    """Decides what each pass would do with each convolution call. Changes nothing.

    Args:
        passes: names, names with options (``"padding-mode{mode=circular,axes=[-1]}"``) or instances.
        include, exclude: globs over module names, ``re:`` regular expressions, or lists of them.
        where: a predicate on the site, as in ``lambda s: s.op.kernel == (2, 2)``.
        allow_no_effect: do not raise if a pass has nothing to do.

    Raises:
        ModelError, InputsError, RecordError, PassError, SelectorError, NoEffectError.
    """
    check_model(model, "plan")
    parsed = parse_passes(passes)
    inputs = None if example_inputs is None else Inputs.of(example_inputs)
    graph = read_tree(model) if inputs is None else trace(model, inputs)
    return plan_recorded(model, graph, parsed, inputs, include, exclude, where, allow_no_effect)


def plan_recorded(
    model: nn.Module,
    graph: Graph,
    passes: Sequence[Pass],
    inputs: Inputs | None,
    include: Names = None,
    exclude: Names = None,
    where: Where = None,
    allow_no_effect: bool = False,
) -> Plan:
    """As ``plan``, on a graph that was recorded of the model, as it is, with these inputs."""
    done = history(model)
    earlier = {edit.site.id: edit for edit in _net_edits(done.plans)} if done is not None else None
    chosen = (include, exclude, where, allow_no_effect)

    def record_again(edits: Sequence[Edit], predicted: Graph) -> Graph:
        assert inputs is not None
        return record_edited(model, edits, predicted, inputs, graph.how)

    return make_plan(model, graph, passes, inputs, tree_fingerprint(model), *chosen, earlier, record_again)


def apply(model: nn.Module, plan: Plan, *, inplace: bool = False) -> nn.Module:
    """Writes a plan into the model (or a copy) and checks that the result is what the plan predicted.

    Weights that are carried over to other layers are the model's own: what that loses is measured anew, and stands in
    the report of the result.

    Raises:
        PlanError: the plan was made for another model.
        WriteError: the result differs from the prediction, or carrying a weight over loses more than the plan allows;
            the model is as it was.
    """
    return _apply(model, plan, inplace)


def _apply(model: nn.Module, plan: Plan, inplace: bool) -> nn.Module:
    check_model(model, "apply")
    if not isinstance(plan, Plan):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise PlanError(f"the plan is a {type(plan).__name__}; give a Plan, as from plan(...) or Plan.load(path).")
    if tree_fingerprint(model) != plan.tree and history(model) is not None:
        raise PlanError(f"this {type(model).__name__} is rewritten already; apply the plan to a model that is not.")
    if tree_fingerprint(model) != plan.tree:
        raise PlanError(
            f"the plan was made for a {plan.model} with other modules or shapes than this {type(model).__name__}. "
            "Make the plan again for this model."
        )
    target = model if inplace else copy_model(model)
    before = snapshot(target)
    try:
        carried = write(target, plan.edits)
        check_prediction(target, plan)
    except BaseException:
        undo(before)
        raise
    new = [edit.site.id for edit in plan.edits if edit.assembly is not None]
    if inplace and new:
        warnings.warn(
            f"{new[0]}{f' and {len(new) - 1} more' if len(new) > 1 else ''} got new parameters. An optimizer made "
            "before holds the old ones: make it again.",
            NewParametersWarning,
            stacklevel=3,
        )
    add_plan(target, restated(plan, carried))
    return target


def transform(
    model: nn.Module,
    passes: Iterable[str | Pass],
    *,
    example_inputs: Any = None,
    include: Names = None,
    exclude: Names = None,
    where: Where = None,
    inplace: bool = False,
    verify: str = "quick",
    allow_no_effect: bool = False,
) -> nn.Module:
    """Rewrites a model: plan, apply, verify. The original is untouched unless ``inplace``.

    Args:
        verify: ``"quick"`` checks every rewritten site in float64; ``"full"`` also the whole model and its
            gradients; ``"off"`` nothing.
        others: as for ``plan``.

    Returns:
        A model of the same class with the same parameters and keys. ``report(new)`` says what was done and why.

    Raises:
        What ``plan`` and ``apply`` raise, and ContractViolation if verification fails (nothing is changed then).
    """
    _check_level(verify)
    check_model(model)
    decided = plan(
        model,
        passes,
        example_inputs=example_inputs,
        include=include,
        exclude=exclude,
        where=where,
        allow_no_effect=allow_no_effect,
    )
    before = snapshot(model) if inplace else []
    new = _apply(model, decided, inplace)
    if verify != "off":
        try:
            done = history(new)
            edits = _net_edits(done.plans) if done is not None else ()
            found = _verify(new, edits, None, decided.example_inputs, verify, grids=_grids(done))
            if found.failures:
                raise _violation(found)
        except BaseException:
            undo(before)
            raise
        note_verification(new, found)
    return new


def verify(
    new: nn.Module,
    *,
    original: nn.Module | None = None,
    example_inputs: Any = None,
    level: str = "full",
    trials: int = 8,
    seed: int = 0,
) -> Verification:
    """Checks every contract of a rewritten model in float64. Raises nothing for a broken one: see ``.ok``.

    Args:
        original: the model before; by default ``new`` with its rewrites taken back, on a copy.
        example_inputs: for the end-to-end check; by default random ones of the shapes the plan was made with.
        level: ``"quick"`` or ``"full"``.
        trials: random inputs per site at level ``"full"``.
    """
    check_model(new, "verify")
    _check_level(level)
    done = history(new)
    if done is None:
        raise PlanError(f"this {type(new).__name__} carries no rewrite of padrewrite's: nothing to verify.")
    if original is not None and tree_fingerprint(_model_of(original)) != done.plans[0].tree:
        raise PlanError(f"original is not what this {type(new).__name__} was made from: other modules or shapes.")
    inputs = None if example_inputs is None else Inputs.of(example_inputs)
    if inputs is None:
        inputs = _random_inputs(done.plans[-1], seed)
    found = _verify(new, _net_edits(done.plans), original, inputs, level, trials, seed, _grids(done))
    note_verification(new, found)
    return found


def revert(model: nn.Module, *, original: nn.Module | None = None) -> nn.Module:
    """Takes every rewrite back, in place; parameters keep their current values. Returns the model.

    Parameters that were replaced come back as they were, from this process; from ``original``, the model before its
    rewrite, where the rewritten one was loaded from a file.

    Raises:
        RevertError: there is nothing to revert, or replaced parameters are gone and ``original`` was not given.
    """
    check_model(model, "revert")
    done = history(model)
    if original is not None and done is not None and tree_fingerprint(_model_of(original)) != done.plans[0].tree:
        raise RevertError(f"original is not what this {type(model).__name__} was made from: other modules or shapes.")
    if take_back(model, original) == 0 and done is None:
        raise RevertError(
            f"this {type(model).__name__} carries no rewrite of padrewrite's: nothing to revert."
        )
    forget(model)
    return model


def report(model: Any) -> Report:
    """What was done to every convolution of a rewritten (or compiled) model, and why.

    Raises:
        PlanError: nothing was done to it.
    """
    backend = getattr(model, "_padrewrite_backend", None)
    if backend is not None:
        return Report((backend.plan(),), None)
    done = history(check_model(model, "report"))
    if done is None:
        raise PlanError(f"this {type(model).__name__} carries no rewrite of padrewrite's: nothing to report.")
    return Report(done.plans, done.verification)


def _model_of(original: Any) -> nn.Module:
    if not isinstance(original, nn.Module):
        raise PlanError(f"original is a {type(original).__name__}; give the model before its rewrite.")
    return original


def _check_level(level: str) -> None:
    if level not in LEVELS:
        raise PadrewriteError(f"verify={level!r} is not one of {', '.join(LEVELS)}.")


def _verify(
    new: nn.Module,
    edits: tuple[Edit, ...],
    original: nn.Module | None,
    inputs: Inputs | None,
    level: str,
    trials: int = 8,
    seed: int = 0,
    grids: Sequence[GridStage] = (),
) -> Verification:
    if level == "full" and original is None and inputs is not None:
        with suppress(RevertError):  # parameters that were replaced are gone after loading from a file
            original = _reverted(new)
    return check_contracts(new, original, edits, inputs, level, trials, seed, grids)


def _grids(done: Any) -> tuple[GridStage, ...]:
    """The grid contracts of the last plan, if the model was rewritten by one plan only."""
    return done.plans[0].grids if done is not None and len(done.plans) == 1 else ()


def _reverted(new: nn.Module) -> nn.Module:
    copied = copy_model(new)
    take_back(copied)
    return copied


def _net_edits(plans: tuple[Plan, ...]) -> tuple[Edit, ...]:
    """One edit per site: from what the original computed to what the last plan made of it."""
    net: dict[str, Edit] = {}
    for one in plans:
        for edit in one.edits:
            first = net.get(edit.site.id, edit)
            net[edit.site.id] = replace(edit, before=first.before)
    return tuple(net.values())


def _random_inputs(plan: Plan, seed: int) -> Inputs | None:
    inputs = plan.example_inputs
    if inputs is None:
        return None
    generator = torch.Generator().manual_seed(seed)
    return inputs.map(
        lambda t: torch.randn(t.shape, generator=generator).to(t.dtype) if t.is_floating_point() else t
    )


def _violation(found: Verification) -> ContractViolation:
    worst = found.failures[0]
    return ContractViolation(
        f"{worst.site} promised {worst.contract} but {worst.note}. Nothing was changed. "
        "This is a bug in the pass (or a very unusual module): please report it with the model."
    )
