"""What the plan predicts of the rewritten model, held against a recording of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from padrewrite.edits import Edit
from padrewrite.errors import WriteError
from padrewrite.graph import Graph
from padrewrite.plans import Plan
from padrewrite.recording.inputs import Inputs
from padrewrite.recording.trace import follow, mode_of
from padrewrite.writing.write import snapshot, undo, write


def record_edited(model: nn.Module, edits: Sequence[Edit], predicted: Graph, inputs: Inputs, how: str) -> Graph:
    """The recording that the model would have with ``edits``, which must be what was predicted but for sizes."""
    before = snapshot(model)
    try:
        with torch.random.fork_rng(devices=()):
            write(model, edits)
        graph = follow(model, inputs, how, mode_of(model))
    except WriteError:
        raise
    except Exception as error:
        raise WriteError(
            f"with other sizes {type(model).__name__}.forward fails: {error}. Nothing was changed. Rewrite the part "
            "that works at any size, as in transform(model.features, ...)."
        ) from error
    finally:
        undo(before)
    where = predicted.difference(graph, sizes=False)
    if where is not None:
        name = type(model).__name__
        raise WriteError(f"the rewritten {name} is not what was predicted: {where}. Nothing was changed.")
    return graph


def check_prediction(model: nn.Module, plan: Plan) -> None:
    """The rewritten model, recorded again, must be isomorphic to the graph that the plan predicted."""
    inputs = plan.example_inputs
    if inputs is None or plan.how not in ("symbolic", "real inputs"):
        return
    if plan.predicted_graph is None and plan.how != "symbolic":
        return
    if plan.mode == "mixed" and mode_of(model) != "mixed":
        return
    try:
        graph = follow(model, inputs, plan.how, plan.mode)
    except Exception as error:
        if plan.predicted_graph is None:
            return  # zeros of the recorded shapes stand in for the inputs; not every forward takes them
        raise WriteError(f"the rewritten {type(model).__name__} does not run: {error}") from error
    if graph.fingerprint == plan.predicted:
        return
    predicted = plan.predicted_graph
    where = predicted.difference(graph) if predicted is not None else f"fingerprint {graph.fingerprint}"
    if where is None:
        return
    raise WriteError(
        f"the rewritten {type(model).__name__} is not what was predicted: {where}. The model is as it was. "
        "If its forward depends on sizes or values in ways the recording missed, rewrite the part that does not."
    )
