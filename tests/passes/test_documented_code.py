"""The code that the documentation of the passes shows, run as it stands there; and the codes of the engine."""

from __future__ import annotations

import importlib
import re
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from expected import TIGHT, Borrowed, Twice, image
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint

import padrewrite as pr
from padrewrite import feasibility
from padrewrite.registry import known_passes

DOCS = Path(__file__).resolve().parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The documented pass as an installed distribution: its module, and the metadata that its project would get."""
    (code,), (toml,) = blocks("plugins.md", "python"), blocks("plugins.md", "toml")
    (tmp_path / "replicate_large.py").write_text(code, encoding="utf-8")
    ((group, entry),) = re.findall(r'\[project\.entry-points\."(.+)"\]\n(.+) = "(?:.+)"', toml)
    target = toml.split('= "')[1].split('"')[0]
    info = tmp_path / "replicate_large-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: replicate-large\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[{group}]\n{entry} = {target}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    known_passes.cache_clear()
    yield importlib.import_module("replicate_large")
    sys.modules.pop("replicate_large")
    known_passes.cache_clear()


def test_the_documented_pass_works(plugin: Any) -> None:
    x = image(9, 12)
    model = nn.Sequential(nn.Conv2d(3, 4, 5, padding=2), nn.Conv2d(4, 4, 3, padding=1)).double()
    new = pr.transform(model, [plugin.ReplicateLarge()], example_inputs=x, verify="full")
    assert [(d.site, d.code) for d in pr.report(new).decisions] == [("0", "rewritten"), ("1", "small")]
    first = F.conv2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), model[0].weight, model[0].bias)
    torch.testing.assert_close(new(x), model[1](first), **TIGHT)
    again = pr.plan(new, [plugin.ReplicateLarge()], example_inputs=x, allow_no_effect=True)
    assert [d.code for d in again.decisions] == ["unpadded", "small"]


def test_the_documented_pass_is_found_by_its_name(plugin: Any) -> None:
    assert known_passes()["replicate-large"] is plugin.ReplicateLarge
    model = nn.Conv2d(3, 4, 3, padding=1)
    plan = pr.plan(model, ["replicate-large{least=3}"], example_inputs=image(5, 7).float())
    assert plan.passes[0].spec == "replicate-large{least=3}"
    assert plan.decisions[0].status == "rewritten"


def test_the_documented_pass_is_short() -> None:
    (code,) = blocks("plugins.md", "python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 30


def test_statistics_are_re_estimated() -> None:
    (code,) = blocks("batch-norm.md", "python")
    names: dict[str, Any] = {}
    exec(compile(code, "batch-norm.md", "exec", dont_inherit=True), names)
    conv, norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4, momentum=0.25)
    model = nn.Sequential(conv, norm, nn.Dropout(0.5), nn.ReLU()).double()
    new = pr.transform(model.eval(), ["partial-padding"], example_inputs=image(7, 7))
    assert any("re-estimate" in note for note in pr.report(new).plans[0].notes)
    new[2].train()
    weights = {name: p.clone() for name, p in new.named_parameters()}
    batches = [image(7, 7) for _ in range(5)]
    names["reestimate"](new, batches)
    seen = torch.cat([new[0](batch) for batch in batches])
    torch.testing.assert_close(new[1].running_mean, seen.mean((0, 2, 3)), **TIGHT)
    variances = [new[0](batch).var((0, 2, 3)) for batch in batches]
    torch.testing.assert_close(new[1].running_var, torch.stack(variances).mean(0), **TIGHT)
    assert not torch.allclose(new[1].running_mean, norm.running_mean)
    assert [m.training for m in new] == [False, False, True, False]
    assert new[1].momentum == 0.25
    assert all(torch.equal(p, weights[name]) for name, p in new.named_parameters())


class Convolution(nn.Module):
    """Calls the function that ``F.conv2d`` ends in."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.convolution(x, self.weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1)


class Doubled(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(2 * x, self.weight, self.bias, padding=1)


class Checkpointed(nn.Module):
    """Runs its own functional convolution again in backward, outside its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 3, 3, 3))

    def block(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, padding=1).relu()

    def forward(self, x: Tensor) -> Any:
        return checkpoint(self.block, x, use_reentrant=False)


class Minding(nn.Conv2d):
    def __init_subclass__(cls) -> None:
        raise TypeError("this layer is final")


class ComputedTwice(nn.Module):
    """Two calls that nothing tells apart: neither weight is a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(x, self.weight * 2, padding=1), self.weight * 3, padding=1)


def on_instance() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1))
    model[0].forward = types.MethodType(Doubled.forward, model[0])
    return model


@dataclass(frozen=True)
class Pairs(pr.Pass):
    """Rewrites the first two convolutions together, and has nothing to say about others."""

    name: ClassVar[str] = "pairs"
    contract: ClassVar[str] = "interior"

    def match(self, graph: pr.Graph) -> Iterator[pr.Match]:
        yield pr.Match(tuple(graph.convs())[:2])

    def legality(self, match: pr.Match) -> Iterator[pr.Check]:
        return iter(())

    def rewrite(self, match: pr.Match) -> tuple[Any, ...]:
        return tuple(replace(site.op, modes=("reflect",) * 2) for site in match.sites)

    def promise(self, match: pr.Match) -> pr.Contract:
        return pr.Contract.interior(match.sites[0].op)


def large(**options: Any) -> nn.Conv2d:
    return nn.Conv2d(3, 8, 7, padding=3, **options)


def tied() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 3, 9, padding=4), nn.Conv2d(3, 3, 9, padding=4))
    model[1].weight = model[0].weight
    return model


def with_state_hook() -> nn.Module:
    model = nn.Sequential(large())
    model[0].register_state_dict_pre_hook(lambda *_: None)
    return model


def with_gradient_hook() -> nn.Module:
    model = nn.Sequential(large())
    model[0].weight.register_hook(lambda grad: grad)
    return model


def with_attribute() -> nn.Module:
    model = nn.Sequential(large())
    model[0].assembly = 3
    return model


class Large(nn.Conv2d):
    """A subclass, of which a replacement would keep nothing."""


SEPARABLE = ("separable-kernel{mid=4}",)


def chain() -> nn.Module:
    return nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)))


@dataclass(frozen=True)
class EngineRow:
    """A code that the engine reports, and a model and a plan in which one site gets it."""

    code: str
    status: str
    model: Callable[[], nn.Module]
    passes: tuple[Any, ...] = ("partial-padding",)
    include: str | None = None
    inputs: bool = True


ENGINE_ROWS = [
    EngineRow("rewritten", "rewritten", chain),
    EngineRow("no-match", "kept", chain, (Pairs(),)),
    EngineRow("not-selected", "kept", chain, include="0"),
    EngineRow("selector-cuts-match", "refused", chain, (Pairs(),), include="0"),
    EngineRow("unsupported-call", "refused", Convolution),
    EngineRow("shared-module", "refused", lambda: Twice(between=lambda t: F.pad(t, (1, 1, 1, 1)))),
    EngineRow("own-forward", "refused", lambda: nn.Sequential(Doubled(3, 4, 3, padding=1)), inputs=False),
    EngineRow("instance-forward", "refused", on_instance),
    EngineRow("under-checkpoint", "refused", Checkpointed),
    EngineRow("own-init-subclass", "refused", lambda: nn.Sequential(Minding(3, 4, 3, padding=1))),
    EngineRow("ambiguous-call", "refused", ComputedTwice, include="#conv2d.0"),
    EngineRow("not-a-layer", "refused", Borrowed, ("separable-kernel{min_kernel=3}",)),
    EngineRow("own-class", "refused", lambda: nn.Sequential(Large(3, 8, 7, padding=3)), SEPARABLE),
    EngineRow("refined", "refused", lambda: nn.Sequential(large()), ("boundary-refinement{at=0}", *SEPARABLE)),
    EngineRow(
        "inside-another",
        "refused",
        lambda: nn.Sequential(large()),
        (*SEPARABLE, "symmetric-even{from_odd=[7]}"),
    ),
    EngineRow("root-layer", "refused", large, SEPARABLE),
    EngineRow(
        "computed-weight",
        "refused",
        lambda: nn.Sequential(prune.random_unstructured(large(), "weight", 0.5)),
        SEPARABLE,
    ),
    EngineRow("tied-weight", "refused", tied, ("separable-kernel{mid=1}",)),
    EngineRow("state-hooks", "refused", with_state_hook, SEPARABLE),
    EngineRow("parameter-hooks", "refused", with_gradient_hook, SEPARABLE),
    EngineRow("taken-name", "refused", with_attribute, SEPARABLE),
    EngineRow("no-values", "refused", lambda: nn.Sequential(large(dtype=torch.complex64)), SEPARABLE, inputs=False),
    EngineRow(
        "padded-outside",
        "refused",
        lambda: nn.Sequential(nn.ZeroPad2d(2), nn.Conv2d(3, 8, 7, padding=1)),
        ("partial-padding", *SEPARABLE),
    ),
    EngineRow("costs-more", "kept", lambda: nn.Sequential(large()), ("separable-kernel",)),
    EngineRow("inexact", "refused", lambda: nn.Sequential(large()), ("separable-kernel{mid=4,max_error=0.01}",)),
]


@pytest.mark.parametrize("row", ENGINE_ROWS, ids=lambda row: row.code)
def test_codes_of_the_engine(row: EngineRow) -> None:
    x = image(9, 12).float() if row.inputs else None
    model = row.model()
    plan = pr.plan(model, row.passes, example_inputs=x, include=row.include, allow_no_effect=True)
    found = {(d.code, d.status) for d in plan.decisions}
    assert (row.code, row.status) in found
    if x is not None and row.status == "refused" and not plan.edits:
        new = pr.apply(model, plan)
        assert torch.equal(new(x), model(x))


def test_every_code_of_the_engine_has_a_row() -> None:
    assert {row.code for row in ENGINE_ROWS} >= set(feasibility.CODES)
