"""With Inductor at the end: numbers, kernels, and compiler caches, warm ones above all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._functorch import config as functorch_config
from torch._functorch._aot_autograd.autograd_cache import check_cacheable
from torch._inductor import config, metrics

import padrewrite
from padrewrite.emitting.backend import compile_model

from .nets import PASSES, Branches, TensorflowSame, closeness

pytestmark = pytest.mark.compile


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())


@torch.no_grad()
def kernels(compiled: nn.Module, x: Tensor) -> tuple[int, Tensor]:
    """Kernels generated for the first call, with every cache off, and its output."""
    before = metrics.generated_kernel_count
    with config.patch(fx_graph_cache=False), functorch_config.patch(enable_autograd_cache=False):
        out = compiled(x)
    return metrics.generated_kernel_count - before, out


def test_partial_padding_adds_no_kernel() -> None:
    """It fuses into the batch norm and ReLU behind the convolution."""
    model, x = network().eval(), torch.randn(2, 3, 20, 17)
    plain, _ = kernels(torch.compile(model), x)
    partial, got = kernels(compile_model(model, passes=PASSES, fullgraph=True), x)
    assert plain > 0
    assert partial == plain
    assert closeness(got, padrewrite.transform(model, PASSES)(x)) < 1e-5


def test_training_step_by_name_with_an_option_for_inductor() -> None:
    model, x = network(), torch.randn(2, 3, 14, 11)
    options = {"passes": ["partial-padding{scale=sqrt}"], "permute_fusion": True, "mode": "default"}
    compiled = torch.compile(model, backend="padrewrite", options=options, fullgraph=True)
    found: list[list[Tensor]] = []
    for one in (compiled, padrewrite.transform(model, ["partial-padding{scale=sqrt}"])):
        one.zero_grad()
        given = x.clone().requires_grad_()
        out = one(given)
        out.square().sum().backward()
        found.append([out, given.grad, *(p.grad for p in one.parameters())])
    for got, wanted in zip(*found, strict=True):
        assert closeness(got, wanted) < 1e-5


def test_rewritten_graphs_are_such_as_the_caches_take() -> None:
    """Only calls that AOTAutograd knows; and every tensor that a method is called on has its value in the meta."""
    graphs: list[torch.fx.GraphModule] = []

    def keep(gm: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        graphs.append(gm)
        return gm.forward

    passes = ["padding-mode{mode=reflect,axes=[-1]}", "partial-padding{scale=sqrt}"]
    for dynamic in (False, True):
        x = torch.randn(2, 3, 21, 18)
        compile_model(Branches().eval(), passes=passes, backend=keep, dynamic=dynamic)(x)
        compile_model(TensorflowSame(3, 4, 3, stride=2), passes=PASSES, backend=keep, dynamic=dynamic)(x)
    assert len(graphs) == 4
    for gm in graphs:
        check_cacheable(gm)
        assert all(hasattr(n, "_dynamo_source") for n in gm.graph.find_nodes(op="placeholder"))
        assert not {key for n in gm.graph.nodes for key in n.meta} & {"at", "origin", "shape", "source", "value"}


ONCE = """
import json, torch
from torch._dynamo.utils import counters
from padrewrite.emitting.backend import compile_model
torch.manual_seed(0)
model, x = torch.nn.Conv2d(3, 4, 3, padding=1).eval(), torch.randn(1, 3, 12, 12)
compiled = compile_model(model, passes=["partial-padding"], fullgraph=True)
with torch.no_grad():
    out, plain = compiled(x), model(x)
seen = [(d.site, d.code) for d in vars(compiled)["_padrewrite_backend"].decisions]
aot = counters["aot_autograd"]
print(json.dumps({
    "seen": seen, "sum": out.double().square().sum().item(), "plain": plain.double().square().sum().item(),
    "hit": aot["autograd_cache_hit"], "miss": aot["autograd_cache_miss"], "bypass": aot["autograd_cache_bypass"],
    "fx hit": counters["inductor"]["fxgraph_cache_hit"],
}))
"""


def in_a_process(code: str, **environment: str) -> Any:
    """What ``code`` prints last, as JSON, run in a process of its own."""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_warm_cache_hides_neither_the_rewrite_nor_the_report(tmp_path: Path) -> None:
    environment = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS": "0"}
    cold, warm = (in_a_process(ONCE, **environment) for _ in range(2))
    assert (cold["hit"], cold["miss"], cold["bypass"]) == (0, 1, 0)
    assert (warm["hit"], warm["miss"], warm["bypass"], warm["fx hit"]) == (1, 0, 0, 1)
    assert cold["seen"] == warm["seen"] == [["(root)", "rewritten"]]
    assert cold["sum"] == warm["sum"]
    assert abs(warm["sum"] - warm["plain"]) > 1e-3


LOADED = """
import json, sys
import padrewrite, padrewrite_passes, padrewrite.emitting.backend
print(json.dumps(sorted(name for name in sys.modules if name.split(".")[0] == "torch")))
"""

SNAPSHOT = """
import copyreg, json, sys, warnings
import torch
for name in %r:
    __import__(name)

def contents(of):
    return {name: id(value) for name, value in vars(of).items()}

def snapshot():
    places = {name: contents(m) for name, m in sys.modules.items() if name.split(".")[0] == "torch" and m}
    classes = {c: contents(c) for m in list(sys.modules.values()) if getattr(m, "__name__", "").startswith("torch.nn")
               for c in vars(m).values() if isinstance(c, type)}
    return {
        "modules": places,
        "classes": {f"{c.__module__}.{c.__qualname__}": v for c, v in classes.items()},
        "tensor": contents(torch.Tensor),
        "operators": sorted(torch._C._dispatch_get_all_op_names()),
        "trees": sorted(map(str, torch.utils._pytree.SUPPORTED_NODES)),
        "safe": sorted(map(str, torch.serialization.get_safe_globals())),
        "backends": torch._dynamo.list_backends(exclude_tags=()),
        "pickling": sorted(map(str, copyreg.dispatch_table)),
        "warnings": list(map(str, warnings.filters)),
        "random": torch.get_rng_state().tolist(),
        "settings": [torch.get_default_dtype().__repr__(), torch.is_grad_enabled(), torch.get_num_threads()],
        "config": {k: repr(v) for c in (torch._dynamo.config, torch._inductor.config)
                   for k, v in c.get_config_copy().items()},
    }

snapshot()
before = snapshot()
import padrewrite, padrewrite_passes, padrewrite.emitting.backend
after = snapshot()
changed = []
for kind in before:
    if before[kind] == after[kind]:
        continue
    for key in before[kind] if isinstance(before[kind], dict) else [None]:
        if key is None or before[kind][key] != after[kind].get(key):
            changed.append(f"{kind} {key}")
print(json.dumps({"changed": changed, "compared": [len(before["modules"]), len(before["classes"])]}))
"""


def test_importing_changes_nothing_in_torch() -> None:
    found = in_a_process(SNAPSHOT % (in_a_process(LOADED),))
    assert found["changed"] == []
    assert min(found["compared"]) > 50
