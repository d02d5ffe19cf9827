"""Promises 8, 10 and 11: what an import, wrappers and compilers make of it."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
import torch
from plain import far, layer, partial
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from untouched import difference, facts
from writing.nets import CIRCULAR, PARTIAL, Branchy, picture

import padrewrite as pr
from padrewrite.errors import ModelError

IMPORTED = """
import copy, pickle, sys, warnings
import torch, torch.nn as nn, torch.nn.functional as F, torch._dynamo, torch.fx, torch.export
import torch._inductor.config, torch._functorch.config, torch._dynamo.backends.registry as registry
from torch._decomp import decomposition_table
from torch.nn.modules import module as m
import networkx, sympy, rich

def snap():
    found = {}
    def walk(name, owner):
        for key, value in list(vars(owner).items()):
            if not (key.startswith("__") and key not in ("__init__", "__call__", "__torch_function__")):
                found[name + "." + key] = id(value)
    watched = ("torch.nn", "torch.fx", "torch.overrides", "torch.export")
    for name in sorted(n for n in sys.modules if n in ("copy", "pickle", "warnings") or n.startswith(watched)):
        walk(name, sys.modules[name])
        for key, value in list(vars(sys.modules[name]).items()):
            if isinstance(value, type) and value.__module__ == name:
                walk(name + "." + key, value)
    walk("torch", torch); walk("Tensor", torch.Tensor)
    for name in vars(m):
        if name.startswith("_global"):
            found["hooks " + name] = repr(vars(m)[name])
    found["decompositions"] = sorted((str(k), id(v)) for k, v in decomposition_table.items())
    for config in (torch._dynamo.config, torch._inductor.config, torch._functorch.config):
        found[config.__name__] = repr(sorted((k, repr(v)) for k, v in config.shallow_copy_dict().items()))
    found["backends"] = sorted((k, id(v)) for k, v in registry._COMPILER_FNS.items())
    found["modes"] = (torch._C._len_torch_function_stack(), torch._C._len_torch_dispatch_stack())
    found["state"] = (torch.get_default_dtype(), torch.is_grad_enabled(), torch.initial_seed(), torch.get_num_threads())
    found["python"] = (repr(warnings.filters), sys.excepthook, sys.getrecursionlimit())
    found["safe globals"] = repr(torch.serialization.get_safe_globals())
    return found

torch.manual_seed(0)
a, again = snap(), snap()
assert a == again, "the snapshot does not repeat itself"
import padrewrite, padrewrite_passes, padrewrite.nn, padrewrite.cli, padrewrite.emitting.backend
b = snap()
changed = sorted(k for k in a if a[k] != b.get(k))
changed += [k for k in b if k not in a and k.startswith("torch.nn.modules") and "padrewrite" in str(b[k])]
if changed:
    sys.exit("; ".join(changed[:20]))
"""


class Test08ImportPatchesNothing:
    def test_in_a_fresh_process(self) -> None:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", IMPORTED], capture_output=True, text=True, timeout=110
        )
        assert done.returncode == 0, done.stderr


class Test10Wrappers:
    def test_refused_with_the_line_to_write(self) -> None:
        model = Branchy()
        lines = {
            nn.DataParallel(model): "new = transform(model.module, ...); DataParallel(new)",
            torch.compile(model, backend="eager"): "new = transform(model._orig_mod, ...); torch.compile(new)",
        }
        for wrapped, line in lines.items():
            with pytest.raises(ModelError) as raised:
                pr.transform(wrapped, PARTIAL, inplace=True)  # pyright: ignore
            assert line in str(raised.value)

    @pytest.mark.filterwarnings("ignore")
    def test_distributed(self, tmp_path: Any) -> None:
        """gloo, world size 1: DDP is refused, a rewritten model trains under it, fully_shard keeps a rewrite."""
        import torch.distributed as dist

        dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
        try:
            self.under_ddp()
            self.under_fully_shard()
        finally:
            dist.destroy_process_group()

    def under_ddp(self) -> None:
        model = Branchy()
        wrapped = nn.parallel.DistributedDataParallel(model)
        with pytest.raises(ModelError, match=r"transform\(model\.module, \.\.\.\); DistributedDataParallel\(new\)"):
            pr.transform(wrapped, PARTIAL)
        new = pr.transform(model.eval(), PARTIAL, example_inputs=picture())
        parallel = nn.parallel.DistributedDataParallel(new)
        parallel(picture()).square().sum().backward()
        alone = pr.transform(model, PARTIAL, example_inputs=picture())
        alone(picture()).square().sum().backward()
        for a, b in zip(new.parameters(), alone.parameters(), strict=True):
            assert a.grad is not None
            assert b.grad is not None
            assert far(a.grad, b.grad) < 1e-5

    def under_fully_shard(self) -> None:
        from torch.distributed.fsdp import FSDPModule, fully_shard

        model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
        new: Any = pr.transform(model, PARTIAL)
        goal = new(picture())
        fully_shard(new[0])
        fully_shard(new)
        assert far(new(picture()), goal) < 1e-5
        pr.revert(new)
        assert isinstance(new, FSDPModule)
        assert isinstance(new[0], FSDPModule)
        assert not isinstance(new[0], pr.nn.PartialConv2d)
        assert far(new(picture()), model(picture())) < 1e-5
        again: Any = pr.transform(new, PARTIAL, inplace=True)
        assert isinstance(again[0], FSDPModule)
        assert far(again(picture()), goal) < 1e-5


def compilations(model: nn.Module, backend: str, sizes: list[tuple[int, int]]) -> int:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    with torch.no_grad():
        for height, width in sizes:
            x = picture(height=height, width=width)
            assert far(compiled(x), model(x)) < 1e-5
    return counter.frame_count


@pytest.mark.compile
class Test11CompilesAsOften:
    """No graph break, nothing for a repeated shape, at most one compilation for the first new size."""

    @pytest.mark.parametrize(("passes", "backend"), [(PARTIAL, "eager"), (PARTIAL, "aot_eager"), (CIRCULAR, "eager")])
    def test_thirty_two_sizes(self, passes: list[str], backend: str) -> None:
        net = Branchy().eval()
        sizes = [(9 + (7 * i) % 32, 40 - (5 * i) % 32) for i in range(32)]
        assert len(set(sizes)) == 32
        plain = compilations(net, backend, sizes)
        new = pr.transform(net, passes, example_inputs=picture())
        assert compilations(new, backend, [*sizes, *sizes[:4]]) <= plain + 1

    def test_a_repeated_shape(self) -> None:
        new = pr.transform(Branchy().eval(), PARTIAL, example_inputs=picture())
        assert compilations(new, "eager", [(9, 10)] * 3) == 1

    def test_no_state_of_the_last_input(self) -> None:
        """Nothing on the modules changes with a call, and a call does not change the next."""
        new = pr.transform(Branchy().eval(), PARTIAL, example_inputs=picture())
        before, first = facts(new), new(picture())
        with torch.inference_mode():
            new(picture(height=21, width=8))
        new(picture(height=30).requires_grad_())
        assert difference(before, facts(new)) is None
        assert torch.equal(new(picture()), first)
        new.train()(picture()).sum().backward()

    def test_no_graph_break(self) -> None:
        new = pr.transform(Branchy().eval(), [*CIRCULAR, *PARTIAL], example_inputs=picture())
        explained = torch._dynamo.explain(new)(picture())
        assert explained.graph_break_count == 0
        assert Counter(type(g).__name__ for g in explained.graphs) == {"GraphModule": 1}


def test_layer_oracle_knows_a_difference() -> None:
    """The oracle of this file differs from zero padding at the border, and only there."""
    conv = nn.Conv2d(3, 4, 3, padding=1)
    new, old = layer(partial, picture(), conv), conv(picture())
    assert far(new, old) > 1e-3
    assert far(new[..., 1:-1, 1:-1], old[..., 1:-1, 1:-1]) < 1e-6
