"""What each call costs before and after a rewrite, against torch's own counter on the running models."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import padrewrite as pr
from padrewrite.analyses.costs import SiteCost
from padrewrite.plans import Plan

PASSES = [
    "output-stride{stride=1}",
    "separable-kernel{mid=1,min_kernel=2}",
    "symmetric-even{from_odd=True}",
    "boundary-refinement{at=[deep,head]}",
    "partial-padding",
]


class Net(nn.Module):
    """Strides, a kept 1x1 layer behind them, groups, a layer that is called twice, perhaps a transposed one."""

    def __init__(self, upwards: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.deep = nn.Conv2d(8, 16, 5, padding=2, groups=2, bias=False)
        self.mixed = nn.Conv2d(16, 8, 1)
        self.head = nn.Conv2d(8, 6, (3, 5), padding=(1, 2))
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2) if upwards else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.twice(torch.relu(self.twice(self.stem(x)))))
        return self.up(self.head(self.mixed(self.deep(x))))


def counted(model: nn.Module, x: Tensor) -> dict[str, int]:
    """Multiply-accumulates of each layer and what is in it, as torch counts them while the model runs."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    found = {name.partition(".")[2]: flops for name, flops in counter.get_flop_counts().items()}
    return {n: sum(found[n].values()) // 2 for n, _ in model.named_children() if n in found}


def told(decisions: Sequence[pr.Decision], when: str) -> dict[str, int]:
    """The same from the decisions; calls of one layer add up."""
    macs: Counter[str] = Counter()
    for decision in decisions:
        macs[decision.site.partition("@")[0]] += getattr(decision, when).macs
    return dict(macs)


@pytest.mark.parametrize("one", PASSES)
def test_each_call_costs_what_torch_counts(one: str) -> None:
    x, model = torch.randn(1, 4, 19, 22), Net(upwards=not one.startswith("output-stride"))
    new = pr.transform(model, [one], example_inputs=x)
    decisions = pr.report(new).decisions
    before, after = counted(model, x), counted(new, x)
    assert told(decisions, "cost_before") == before
    assert told(decisions, "cost_after") == after
    assert (before == after) == (one == "partial-padding")
    layers = {d.site: d for d in decisions if "@" not in d.site}
    for site, decision in layers.items():
        pairs = zip((model, new), (decision.cost_before, decision.cost_after))
        for owner, cost in pairs:
            assert cost is not None
            assert cost.parameters == sum(p.numel() for p in owner.get_submodule(site).parameters())
    found = pr.report(new).plans[0].passes[0]
    for cost, macs in ((found.before, before), (found.after, after)):
        assert cost is not None
        assert cost.macs == sum(macs.values())


def test_kept_layers_cost_more_where_what_they_read_is_finer() -> None:
    x = torch.randn(1, 4, 19, 22)
    plan = pr.plan(Net(upwards=False), ["output-stride{stride=1}"], example_inputs=x)
    (mixed,) = (d for d in plan.decisions if d.site == "mixed")
    macs = [n * 16 * 8 for n in (10 * 11, 19 * 22)]
    assert mixed.status == "kept"
    assert f"cost: 136 parameters, {macs[0]:,} -> {macs[1]:,} multiply-accumulates" in plan.why_not("mixed")


def test_passes_in_a_row_begin_where_the_one_before_ended() -> None:
    passes = ["output-stride{stride=1}", "separable-kernel{mid=1,min_kernel=2}"]
    plan = pr.plan(Net(upwards=False), passes, example_inputs=torch.randn(1, 4, 19, 22))
    first, second = (
        {d.site: d for d in plan.decisions if d.pass_name == name} for name in ("output-stride", "separable-kernel")
    )
    assert [d.cost_after for d in first.values()] == [second[site].cost_before for site in first]


def test_without_inputs_parameters_alone_are_known() -> None:
    plan = pr.plan(Net(upwards=True), ["separable-kernel{mid=1,min_kernel=2}"])
    stem = plan.decisions[0]
    assert stem.cost_before == SiteCost(8 * 4 * 9 + 8, None)
    assert stem.cost_after == SiteCost(2 * (4 * 3 + 3 * 8) + 8, None)
    assert "cost: 296 -> 80 parameters\n" in plan.why_not("stem") + "\n"


def test_costs_are_in_the_files() -> None:
    x, name = torch.randn(1, 4, 19, 22), "symmetric-even{from_odd=True}"
    new = pr.transform(Net(upwards=True), [name], example_inputs=x)
    plan = pr.report(new).plans[0]
    assert Plan.from_json(plan.to_json()) == plan
    stem = json.loads(pr.report(new).to_json())["decisions"][0]
    macs = [8 * 4 * taps * 10 * 11 for taps in (9, 4)]
    assert stem["cost_before"] == {"parameters": 8 * 4 * 9 + 8, "macs": macs[0]}
    assert stem["cost_after"] == {"parameters": 8 * 4 * 4 + 8, "macs": macs[1]}
