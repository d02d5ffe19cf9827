"""``torch.compile`` with the backend computes what ``transform`` computes, in every mode, at every size."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.exc import BackendCompilerFailed
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters

import padrewrite
from padrewrite.checks.naive import naive_conv
from padrewrite.emitting.backend import Backend, backend, compile_model
from padrewrite.errors import ModelError, NoEffectError, PadrewriteError, PassError, SelectorError
from padrewrite.reporting.reports import Report

from .nets import BRANCHES, OPTIONS, PASSES, Branches, TensorflowSame, closeness

pytestmark = pytest.mark.compile


def backend_of(compiled: nn.Module) -> Backend:
    return vars(compiled)["_padrewrite_backend"]


def by_site(compiled: nn.Module) -> dict[str, str]:
    return {d.site: d.code for d in backend_of(compiled).decisions}


def compiled_with(model: nn.Module, passes: list[Any] = PASSES, **settings: Any) -> nn.Module:
    return compile_model(model, passes=passes, backend=settings.pop("backend", "eager"), **settings)


def gradients(model: nn.Module, x: Tensor) -> list[Tensor]:
    model.zero_grad()
    x = x.clone().requires_grad_()
    model(x).square().sum().backward()
    return [x.grad, *(p.grad for p in model.parameters())]  # type: ignore[list-item]


def test_by_name_it_computes_what_transform_computes() -> None:
    model, x = Branches().eval(), torch.randn(2, 3, 21, 18)
    wanted = padrewrite.transform(model, PASSES, example_inputs=x)(x)
    got = torch.compile(model, backend="padrewrite", options=OPTIONS, fullgraph=True)(x)
    assert closeness(got, wanted) < 1e-6
    assert closeness(model(x), wanted) > 1e-3


@pytest.mark.parametrize(("train", "dynamic"), [(True, None), (False, True)])
def test_forward_and_backward_in_float64(train: bool, dynamic: bool | None) -> None:
    model, x = Branches() if train else Branches().up_to_norm(), torch.randn(2, 3, 21, 18, dtype=torch.float64)
    model = model.double().train(train)
    new = padrewrite.transform(copy.deepcopy(model), PASSES, example_inputs=x)
    compiled = compiled_with(copy.deepcopy(model), backend="aot_eager", fullgraph=True, dynamic=dynamic)
    assert closeness(compiled(x), new(x)) < 1e-10
    for got, wanted in zip(gradients(compiled, x), gradients(new, x), strict=True):
        assert closeness(got, wanted) < 1e-10
    for got, wanted in zip(compiled.buffers(), new.buffers(), strict=True):
        assert torch.equal(got, wanted)


def test_against_the_naive_reference() -> None:
    layer = nn.Conv2d(4, 6, (3, 4), stride=(2, 1), padding=(2, 3), dilation=(1, 2), groups=2).double()
    x = torch.randn(2, 4, 9, 11, dtype=torch.float64)
    compiled = compiled_with(layer, ["partial-padding{scale=sqrt}"], fullgraph=True)
    wanted = naive_conv(
        x, layer.weight, layer.bias, stride=(2, 1), dilation=(1, 2), padding=((2, 2), (3, 3)), groups=2, partial="sqrt"
    )
    assert isinstance(wanted, Tensor)
    assert closeness(compiled(x), wanted) < 1e-10
    assert list(by_site(compiled)) == ["(root)"]


def test_every_call_has_the_decision_that_a_plan_has() -> None:
    model, x = Branches().eval(), torch.randn(2, 3, 21, 18)
    compiled = compiled_with(model)
    compiled(x)
    planned = padrewrite.plan(model, PASSES, example_inputs=x).decisions
    assert by_site(compiled) == BRANCHES
    assert [(d.site, d.status, d.code, d.source) for d in backend_of(compiled).decisions] == [
        (d.site, d.status, d.code, d.source) for d in planned
    ]
    assert [(d.before, d.after, d.contract) for d in backend_of(compiled).decisions] == [
        (d.before, d.after, d.contract) for d in planned
    ]
    text = str(Report((backend_of(compiled).plan(),)))
    assert "recorded: dynamo" in text
    assert "#conv2d.0" in text


def test_several_passes_and_options_of_passes() -> None:
    model, x = Branches().eval(), torch.randn(2, 3, 21, 18)
    passes = ["padding-mode{mode=reflect,axes=[-1]}", "partial-padding"]
    # Reflected on one axis and partial on the other.
    new = padrewrite.transform(model, passes, example_inputs=x, exclude="#*")
    compiled = compiled_with(model, passes, exclude="#*", fullgraph=True)
    assert closeness(compiled(x), new(x)) < 1e-6
    assert len(backend_of(compiled).decisions) == 2 * len(BRANCHES)


def test_what_is_partial_already_is_kept() -> None:
    x = torch.randn(2, 3, 20, 17)
    model = nn.Sequential(TensorflowSame(3, 8, 3, stride=2), nn.Conv2d(8, 3, 3, padding=1), Branches())
    new = padrewrite.transform(model.eval(), ["partial-padding{scale=sqrt}"], example_inputs=x)
    compiled = compiled_with(new, ["partial-padding{scale=sqrt}"], fullgraph=True)
    assert closeness(compiled(x), new(x)) < 1e-6
    codes = [d.code for d in backend_of(compiled).decisions]
    assert codes.count("already-partial") == 7
    assert "rewritten" not in codes
    other = compiled_with(new, fullgraph=True, allow_no_effect=True)
    assert closeness(other(x), new(x)) < 1e-6
    assert [d.code for d in backend_of(other).decisions].count("other-scale") == 7


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: torch.dtype) -> None:
    model, x = Branches().eval(), torch.randn(2, 3, 21, 18)
    new = padrewrite.transform(model, PASSES, example_inputs=x)
    compiled = compiled_with(model, fullgraph=True)
    with torch.autocast("cpu", dtype=dtype), torch.no_grad():
        got, wanted = compiled(x), new(x)
    assert got.dtype == dtype
    assert torch.equal(got, wanted)


def compile_count(compile_it: Callable[[Any], Any], inputs: list[Tensor]) -> int:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = compile_it(counter)
    for x in inputs:
        compiled(x)
    return counter.frame_count


def test_thirty_two_sizes_compile_as_often_as_without_it() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 5, 2, 4, dilation=2)).eval()
    new = padrewrite.transform(model, PASSES)
    inputs = [torch.randn(1 + n % 3, 3, 12 + n, 40 - n) for n in range(32)]
    compiled = {}

    def with_backend(counter: Any) -> Any:
        compiled["it"] = compiled_with(model, backend=counter, fullgraph=True)
        return compiled["it"]

    plain = compile_count(lambda counter: torch.compile(model, backend=counter, fullgraph=True), inputs)
    assert compile_count(with_backend, inputs) <= plain + 1
    for x in inputs[::7]:
        assert closeness(compiled["it"](x), new(x)) < 1e-6


def test_batch_one_then_others() -> None:
    """A graph compiled for one sample must not take one for the size of every batch."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Conv2d(4, 4, 2, padding=1, bias=False)).eval()
    new = padrewrite.transform(model, PASSES)
    compiled = compiled_with(model, backend="aot_eager", fullgraph=True)
    for shape in ((1, 3, 16, 16), (7, 3, 16, 16), (3, 3, 33, 14), (1, 3, 9, 40)):
        x = torch.randn(shape)
        assert closeness(compiled(x), new(x)) < 1e-6


def test_padding_that_depends_on_the_size() -> None:
    model = nn.Sequential(TensorflowSame(3, 4, 3, stride=2), nn.ReLU(), TensorflowSame(4, 4, 5, stride=2)).double()
    compiled = compiled_with(model, fullgraph=True, dynamic=True)
    for size in (16, 17, 19, 30):
        x = torch.randn(2, 3, size, size + 2, dtype=torch.float64)
        wanted = x
        for layer in (model[0], model[2]):
            n, k = wanted.shape[-2:], layer.kernel_size[0]
            totals = [max((-(-m // 2) - 1) * 2 + k - m, 0) for m in n]
            pairs = [(t // 2, t - t // 2) for t in totals]
            wanted = naive_conv(wanted, layer.weight, layer.bias, stride=(2, 2), padding=pairs, partial="mean")
            assert isinstance(wanted, Tensor)
            wanted = wanted.relu() if layer is model[0] else wanted
        assert closeness(compiled(x), wanted) < 1e-10
    assert set(by_site(compiled).values()) == {"rewritten"}


class PaddedByHalf(nn.Module):
    """A convolution whose own padding is computed from the input's size."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, padding=x.shape[-1] // 8)


def test_symbolic_arguments_are_refused_not_frozen() -> None:
    model = nn.Sequential(PaddedByHalf(), nn.Conv2d(3, 3, 3, padding=1))
    compiled = compiled_with(model, fullgraph=True, dynamic=True)
    for size in (16, 24, 32):
        x = torch.randn(1, 3, size, size)
        wanted = padrewrite.transform(model, PASSES, include="1")(x)
        assert closeness(compiled(x), wanted) < 1e-6
    assert by_site(compiled) == {"0#conv2d.0": "symbolic-arguments", "1": "rewritten"}
    with pytest.warns(UserWarning, match=r"0#conv2d\.0 is not rewritten.*dynamic=False"):
        torch.compile(model, backend="padrewrite", options=OPTIONS, dynamic=True)(torch.randn(1, 3, 16, 16))


def test_a_site_rewritten_at_one_size_only_is_an_error() -> None:
    """Static at first, symbolic at the second size: the model would quietly change what it computes."""
    compiled = compiled_with(nn.Sequential(PaddedByHalf(), nn.Conv2d(3, 3, 3, padding=1)))
    compiled(torch.randn(1, 3, 16, 16))
    with pytest.raises(BackendCompilerFailed, match=r"0#conv2d\.0 at some input sizes.*dynamic=False"):
        compiled(torch.randn(1, 3, 24, 24))


def test_a_zero_pad_layer_under_dynamic_shapes() -> None:
    model = nn.Sequential(nn.ZeroPad2d((1, 0, 2, 1)), nn.Conv2d(3, 4, 3)).eval()
    new = padrewrite.transform(model, PASSES, example_inputs=torch.randn(1, 3, 9, 9))
    compiled = compiled_with(model, fullgraph=True, dynamic=True)
    for shape in ((1, 3, 9, 9), (2, 3, 12, 8)):
        x = torch.randn(shape)
        assert closeness(compiled(x), new(x)) < 1e-6


def test_no_graph_break_is_added() -> None:
    counters.clear()
    compiled_with(Branches())(torch.randn(2, 3, 16, 16))
    assert sum(counters["graph_break"].values()) == 0
    assert counters["stats"]["unique_graphs"] == 1


def test_the_model_is_left_alone() -> None:
    model, other, x = Branches().eval(), Branches().eval(), torch.randn(2, 3, 16, 16)
    compiled_with(model)(x)
    torch.compile(other, backend="eager")(x)

    def shape_of(model: nn.Module) -> list[Any]:
        return [(name, type(m).__name__, sorted(vars(m)), len(m._forward_hooks)) for name, m in model.named_modules()]

    assert shape_of(model) == shape_of(other)


def fail_by_name(model: nn.Module, options: dict[str, Any]) -> str:
    torch._dynamo.reset()
    with pytest.raises(BackendCompilerFailed) as caught:
        torch.compile(model, backend="padrewrite", options={"inner": "eager", **options})(torch.randn(1, 3, 8, 8))
    assert isinstance(caught.value.inner_exception, PadrewriteError)
    return str(caught.value)


def test_errors_by_name() -> None:
    model = nn.Conv2d(3, 3, 3, padding=1)
    assert "needs passes" in fail_by_name(model, {"include": "*"})
    assert "Closest: partial-padding" in fail_by_name(model, {"passes": ["partial-paddin"]})
    assert "Closest: exclude" in fail_by_name(model, {"passes": PASSES, "inner": "inductor", "exlude": "*"})
    assert "matched 0 of 1 convolutions" in fail_by_name(model, {"passes": PASSES, "include": "layer5.*"})
    assert "NoEffectError" in fail_by_name(nn.Conv2d(3, 3, 1), {"passes": PASSES})


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"passes": ()}, PassError, "passes is empty"),
        ({"passes": ["partial-padding{scale=max}"]}, PassError, "scale='max'"),
        ({"passes": PASSES, "backend": "inducter"}, PassError, "unknown inner backend 'inducter'"),
        ({"passes": PASSES, "mode": "fastest"}, PassError, "unknown mode 'fastest'.*reduce-overhead"),
        ({"passes": PASSES, "options": {"max_autotun": True}}, PassError, "unknown option.*max_autotune"),
        ({"passes": PASSES, "options": {"max_autotune": "yes"}}, PassError, "Inductor refuses"),
        ({"passes": PASSES, "backend": "eager", "mode": "max-autotune"}, PassError, "only Inductor"),
    ],
)
def test_settings_are_checked_before_anything_is_compiled(
    settings: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        compile_model(nn.Conv2d(3, 3, 3), **settings)


def test_wrapped_models_are_refused() -> None:
    with pytest.raises(ModelError, match="compiled"):
        compile_model(torch.compile(nn.Conv2d(3, 3, 3)), passes=PASSES)


def test_no_effect_is_raised_by_the_first_call_and_by_every_one_after() -> None:
    compiled = compiled_with(nn.Conv2d(3, 3, 1))
    for _ in range(2):
        with pytest.raises(NoEffectError, match="1 unpadded"):
            compiled(torch.randn(1, 3, 8, 8))
    compiled_with(nn.Conv2d(3, 3, 1), allow_no_effect=True)(torch.randn(1, 3, 8, 8))


def test_selectors() -> None:
    model, x = Branches().eval(), torch.randn(2, 3, 21, 18)
    new = padrewrite.transform(model, PASSES, example_inputs=x, include=["stem", "normed"])
    compiled = compiled_with(model, include=["stem", "nor*", "shared"], exclude="re:shared.*")
    assert closeness(compiled(x), new(x)) < 1e-6
    assert [site for site, code in by_site(compiled).items() if code == "rewritten"] == ["stem", "normed"]
    with pytest.raises(SelectorError, match=r"include='stm' matched 0 of 8 convolutions\. Closest: stem"):
        compiled_with(model, include=["normed", "stm"])(x)
    by_size = compiled_with(model, where=lambda s: s.op.kernel == (5, 5))
    by_size(x)
    assert [site for site, code in by_site(by_size).items() if code == "rewritten"] == ["stem"]


def test_a_graph_without_convolutions_is_passed_on() -> None:
    x = torch.randn(4)
    got = torch.compile(lambda t: t * 2, backend="padrewrite", options=OPTIONS)(x)
    assert torch.equal(got, x * 2)


def test_a_function_of_two_models() -> None:
    one, two, x = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1), torch.randn(1, 3, 8, 8)
    seen = Backend(PASSES, inner="eager")

    def both(x: Tensor) -> Tensor:
        return one(two(x))

    wanted = padrewrite.transform(one, PASSES)(padrewrite.transform(two, PASSES)(x))
    assert closeness(torch.compile(both, backend=seen)(x), wanted) < 1e-6
    assert [d.site for d in seen.decisions] == ["two", "one"]


def test_by_hand_without_dynamo() -> None:
    """A graph that is not Dynamo's has none of its meta; the backend says so instead of guessing."""
    gm = torch.fx.symbolic_trace(nn.ReLU())
    x = torch.randn(3)
    assert torch.equal(backend(gm, [x], passes=PASSES, inner="eager")(x), x.relu())


def test_disabled() -> None:
    model, x = nn.Conv2d(3, 3, 1), torch.randn(1, 3, 8, 8)
    assert torch.equal(compile_model(model, passes=PASSES, disable=True)(x), model(x))
