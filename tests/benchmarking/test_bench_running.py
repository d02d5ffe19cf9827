"""run_bench end to end on small hand-made pairs. Nothing here asserts a time."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from padrewrite.benchmarking import run_bench
from padrewrite.benchmarking.compiled import warm_compiler
from padrewrite.errors import InputsError, ModelError

# torch's own deprecation, raised by its imports when a process compiles for the first time.
compiles = [
    pytest.mark.compile,
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
]


@dataclass
class Output:
    logits: torch.Tensor
    features: list[torch.Tensor]


class Net(nn.Module):
    def __init__(self, padding_mode: str = "zeros") -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, padding_mode=padding_mode)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> Output:
        features = self.drop(self.norm(self.conv(x)).relu())
        return Output(features.mean((2, 3)), [features])


def _inputs() -> torch.Tensor:
    return torch.randn(2, 3, 8, 8)


def test_eager_cases_and_their_order() -> None:
    report = run_bench(Net(), Net("circular"), _inputs(), modes=("eager",), rounds=6, warmup=1)
    assert [(case.mode, case.phase) for case in report.cases] == [("eager", "eval"), ("eager", "train")]
    assert (report.device, report.dtype, report.sizes) == ("cpu", "float32", ((2, 3, 8, 8),))
    for case in report.cases:
        assert [t.name for t in case.comparison.timings] == ["original", "rewritten"]
        assert all(
            len(t.seconds) == 6 and min(t.seconds) > 0 and t.first.low > 0 and t.pairs == 6
            for t in case.comparison.timings
        )
    assert report.case("eager", "eval").structures["original"].saved_bytes is None
    zeros, circular = (report.case("eager", "train").structures[n].saved_bytes for n in ("original", "rewritten"))
    assert zeros is not None
    assert circular is not None
    # A circular convolution keeps its padded input, 2x3x10x10 floats, where the other keeps the input itself.
    assert circular - zeros == 2 * 3 * 10 * 10 * 4


def test_nothing_given_is_changed() -> None:
    model, rewritten, x = Net().train(), Net("circular").eval(), _inputs()
    kept = copy.deepcopy((model.state_dict(), rewritten.state_dict(), x))
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    other = threads + 1
    report = run_bench(
        model,
        rewritten,
        x,
        modes=("eager",),
        rounds=2,
        warmup=0,
        dtype=torch.float64,
        channels_last=True,
        threads=other,
    )
    assert report.machine.threads == other
    assert (report.dtype, report.channels_last) == ("float64", True)
    for before, after in zip(kept, (model.state_dict(), rewritten.state_dict(), x)):
        torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert (model.training, rewritten.training) == (True, False)
    assert all(p.grad is None for p in (*model.parameters(), *rewritten.parameters()))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_every_case_starts_from_fresh_copies() -> None:
    """A model that caches something on its first call pays for it in each case's first iteration."""
    first_calls: list[str] = []

    class Lazy(Net):
        cache: torch.Tensor | None = None

        def forward(self, x: torch.Tensor) -> Output:
            if self.cache is None:
                first_calls.append("train" if self.training else "eval")
                self.cache = torch.ones(())
            return super().forward(x * self.cache)

    run_bench(Net(), Lazy(), _inputs(), modes=("eager",), rounds=1, warmup=0)
    # On the throwaway copy, on the one timed in rounds, and on the one timed for its first call.
    assert first_calls == ["eval"] * 3 + ["train"] * 3


class Failing(Net):
    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def forward(self, x: torch.Tensor) -> Output:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("out of luck")
        return super().forward(x)


def test_a_failure_names_the_model_and_the_case() -> None:
    eager = {"modes": ("eager",), "rounds": 3, "warmup": 0}
    with pytest.raises(InputsError, match=r"bench eager eval: 'original' failed on inputs of sizes \[\(2, 3, 8, 8\)\]"):
        run_bench(Failing(0), Net(), _inputs(), **eager)
    with pytest.raises(
        ModelError, match=r"eager eval: 'rewritten' failed .*: RuntimeError: out of luck. The original ran"
    ):
        run_bench(Net(), Failing(0), _inputs(), **eager)
    # The throwaway copy uses up none of the timed copy's luck: first call, then round 1, then no more.
    with pytest.raises(ModelError, match=r"bench eager eval: 'rewritten' failed in round 2: RuntimeError: out of luck"):
        run_bench(Net(), Failing(2), _inputs(), **eager)


def test_a_pair_with_nothing_to_train_is_an_error_in_training_only() -> None:
    frozen = Net().requires_grad_(False)
    run_bench(Net(), frozen, _inputs(), modes=("eager",), phases=("eval",), rounds=1, warmup=0)
    with pytest.raises(ModelError, match="output of 'rewritten' requires grad"):
        run_bench(Net(), frozen, _inputs(), modes=("eager",), phases=("train",), rounds=1, warmup=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modes": ()}, r"modes=\(\) must be"),
        ({"modes": "eager"}, "modes='eager' must be a sequence of one or more of eager, compiled"),
        ({"modes": ("eager", "eager")}, "modes="),
        ({"phases": ("test",)}, "one or more of eval, train"),
        ({"rounds": 0}, "rounds=0"),
        ({"warmup": -1}, "warmup=-1"),
        ({"threads": 0}, "threads=0"),
        ({"device": "gpu"}, "does not know device 'gpu'"),
        ({"device": "meta"}, "cannot time device 'meta'"),
    ],
)
def test_options_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputsError, match=message):
        run_bench(Net(), Net(), _inputs(), **options)  # pyright: ignore[reportArgumentType]


class WithBreak(Net):
    def forward(self, x: torch.Tensor) -> Output:
        x = x * 2
        torch._dynamo.graph_break()
        return super().forward(x)


class TestCompiled:
    """Tests that compile with Inductor, gathered so that they share one set of markers."""

    pytestmark = compiles

    def test_counts_of_a_model_against_itself_are_equal(self) -> None:
        net = Net()
        report = run_bench(net, net, _inputs(), modes=("compiled",), rounds=2, warmup=0)
        for case in report.cases:
            first, second = (case.structures[name] for name in ("original", "rewritten"))
            assert (first.graphs, first.graph_breaks, first.recompiles) == (1, 0, 0)
            assert (second.graphs, second.graph_breaks, second.recompiles) == (1, 0, 0)
            assert first.kernels == second.kernels
            assert first.kernels
            assert first.compile_seconds is not None
            assert first.compile_seconds > 0
        kernels = [report.case("compiled", phase).structures["original"].kernels or 0 for phase in ("eval", "train")]
        assert kernels[1] > kernels[0], "the backward has kernels too"
        json.loads(report.to_json(raw=True))

    def test_a_graph_break_in_one_variant_is_counted_there_alone(self) -> None:
        report = run_bench(Net(), WithBreak(), _inputs(), modes=("compiled",), phases=("eval",), rounds=1, warmup=0)
        plain, broken = report.case("compiled", "eval").structures.values()
        assert (plain.graphs, plain.graph_breaks) == (1, 0)
        assert (broken.graphs, broken.graph_breaks) == (2, 1)

    def test_a_compiler_that_does_not_work_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails(net: nn.Module) -> nn.Module:
            raise RuntimeError("no C++ compiler")

        monkeypatch.setattr(torch, "compile", fails)
        with pytest.raises(InputsError, match=r"RuntimeError: no C\+\+ compiler\); try modes=\('eager',\)"):
            warm_compiler(torch.device("cpu"))
