"""The grid contract, end to end: what the original computes stands in the new result, on a grid, at every position."""

from __future__ import annotations

from typing import Any

import torch
import torch.fx as fx
from torch import Tensor, nn

from padrewrite.checks.compare import Comparison
from padrewrite.contracts import Contract, Evidence
from padrewrite.plans import GridStage
from padrewrite.recording.execute import execute, state_of
from padrewrite.recording.inputs import Inputs
from padrewrite.recording.preserve import preserved
from padrewrite.recording.trace import trace
from padrewrite.writing.copying import copy_model
from padrewrite.writing.redirecting import pool_answers
from padrewrite.writing.write import write


def check_grid(original: nn.Module, stage: GridStage, inputs: Inputs, tolerance: float) -> list[Evidence]:
    """Runs both models in float64 and compares the output of every convolution that is promised a grid.

    ``new[..., ::s] == old`` at all positions, borders included; batch norms use their running statistics.
    """
    old = _outputs(_rewritten(original, stage.before), inputs, set(stage.factors))
    new = _outputs(_rewritten(original, stage.after), inputs, set(stage.factors))
    found: list[Evidence] = []
    for site, factors in stage.factors.items():
        promise = str(Contract.grid(factors))
        if site not in old or site not in new:
            found.append(Evidence(site, promise, 0.0, True, True, "its forward does not run in float64"))
            continue
        comparison = Comparison(tolerance)
        for before, after in zip(old[site], new[site], strict=True):
            comparison.add(after[(..., *(slice(None, None, f) for f in factors))], before)
        found.append(comparison.evidence(site, promise))
    return found


def _rewritten(original: nn.Module, edits: Any) -> nn.Module:
    copied = copy_model(original).eval()
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)  # layers that begin anew begin alike in both
        write(copied, edits)
    return copied


def _outputs(model: nn.Module, inputs: Inputs, wanted: set[str]) -> dict[str, list[Tensor]]:
    """The outputs of chosen convolution and pool calls, in float64."""
    graph = trace(model, inputs, symbolic=False)
    assert graph.nodes is not None
    nodes = {graph.node_of(site): site for site in wanted if site in graph.sites}
    nodes |= {graph.pool_nodes[site]: site for site in wanted if site in graph.pools}
    kept: dict[str, list[Tensor]] = {}

    def keep(node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if node not in nodes:
            return NotImplemented
        target: Any = node.target
        result = target(*args, **kwargs)
        kept.setdefault(nodes[node], []).append(result)
        return result

    given = state_of(model, graph.constants)
    state = {k: v.detach().double() if v.is_floating_point() else v for k, v in given.items()}
    with preserved(model), torch.no_grad():
        outputs = execute(graph.nodes, state, inputs.double().tensors, keep)
    kept |= {f"(output {index})": [output] for index, output in enumerate(outputs)}
    return _pools(model, inputs, wanted - kept.keys()) | kept


def _pools(model: nn.Module, inputs: Inputs, wanted: set[str]) -> dict[str, list[Tensor]]:
    """The outputs, in float64, of redirected pools that a recording does not show because they are other calls."""
    if not wanted:
        return {}
    fresh = inputs.double()
    with preserved(model), torch.no_grad(), pool_answers() as answers:
        try:
            model.double()(*fresh.args, **fresh.kwargs)
        except RuntimeError:  # a forward may ask for another type
            return {}
    return {site: found for site, found in answers.items() if site in wanted}
