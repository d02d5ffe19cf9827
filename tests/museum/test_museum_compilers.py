"""Processes, imports and compilers: real bugs of real tools, a test each."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from plain import far
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from writing.nets import CIRCULAR, PARTIAL, Branchy, branchy_partial, picture

import padrewrite as pr


def one(**kwargs: Any) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3, **{"padding": 1, **kwargs}))


def test_row_13_rules_fire_at_random() -> None:
    """onnxscript#2878: a rule fires in 6 of 20 runs. The same sites in the same order, of any hash seed."""
    tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    script = (
        f"import sys; sys.path.insert(0, {tests!r}); import padrewrite as pr\n"
        "from writing.nets import *\n"
        "some = ['stem', '#*', 're:n.*']\n"
        "plan = pr.plan(Branchy().eval(), [*CIRCULAR, *PARTIAL], example_inputs=picture(), include=some)\n"
        "print(plan.to_json())"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", script],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
        )
        for seed in ("0", "77")
    ]
    first, second = (process.communicate(timeout=110)[0] for process in running)
    assert first == second
    assert first.count(b'"rewritten"') >= 3


def test_row_14_importing_breaks_others() -> None:
    """nncf#2665, nncf#1573: after the import, torch.compile and export of other models still work as before."""
    script = (
        "import torch, sys\nbefore = torch.nn.Conv2d.forward, torch.nn.Module.__call__, torch.conv2d\n"
        "import padrewrite, padrewrite.emitting.backend\n"
        "assert before == (torch.nn.Conv2d.forward, torch.nn.Module.__call__, torch.conv2d)\n"
        "m, x = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1)), torch.randn(1, 3, 8, 8)\n"
        "assert torch.equal(torch.compile(m, backend='eager', fullgraph=True)(x), m(x))\n"
        "assert torch.equal(torch.export.export(m, (x,)).module()(x), m(x))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.compile
def test_row_18_a_cache_for_each_size() -> None:
    """pytorch#121504: masks cached per size exhaust the compiler's cache."""
    new = pr.transform(one().eval(), PARTIAL)
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(new, backend=counter, fullgraph=True)
    for step in range(32):
        compiled(picture(1, 8 + step, 40 - step))
    assert counter.frame_count <= 2


@pytest.mark.parametrize("passes", [PARTIAL, CIRCULAR])
def test_row_19_a_dimension_fixed_to_one(passes: list[str]) -> None:
    """pytorch#166151: batch 1 at capture becomes batch 1 for ever."""
    model = Branchy().eval()
    new = pr.transform(model, passes, example_inputs=picture(1))
    for shape in ((7, 11, 13), (1, 20, 9), (3, 6, 31)):
        x = picture(*shape)
        together = new(x)
        assert together.shape == model(x).shape
        assert far(together, torch.cat([new(sample[None]) for sample in x])) < 1e-5
        if passes is PARTIAL:
            assert far(together, branchy_partial(new, x)) < 1e-5  # pyright: ignore
