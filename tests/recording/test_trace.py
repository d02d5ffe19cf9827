"""Recording: it leaves no trace, its graph is the forward at other sizes too, and it says when it cannot follow."""

from __future__ import annotations

import collections
import inspect
import random
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from untouched import untouched

import padrewrite as pr
from padrewrite.errors import InputsError, PadrewriteError, RecordError
from padrewrite.recording import trace
from padrewrite.recording.execute import execute, state_of
from padrewrite.recording.inputs import Inputs


def picture(height: int = 8, width: int = 9, batch: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


class Made(nn.Module):
    """A convolution and whatever a test's function does around it."""

    def __init__(self, forward: Callable[..., Any], init: Callable[[Any], Any] = lambda self: None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self._run = forward
        init(self)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._run(self, *args, **kwargs)


def replayed(graph: pr.Graph, model: nn.Module, *inputs: Tensor) -> tuple[Tensor, ...]:
    assert graph.nodes is not None
    with torch.no_grad():
        return execute(graph.nodes, state_of(model, graph.constants), inputs)


def remember(self: Any, x: Tensor) -> Tensor:
    self.last = x
    self.calls = getattr(self, "calls", 0) + 1
    self.history.append(self.calls)
    self.table["shape"] = tuple(x.shape)
    return self.conv(x)


def make_buffer(self: Any, x: Tensor) -> Tensor:
    if "grid" not in self._buffers:
        self.register_buffer("grid", torch.ones(x.shape[-2:]))
    return self.conv(x) + self.grid


def make_layer(self: Any, x: Tensor) -> Tensor:
    if not hasattr(self, "lazy"):
        self.lazy = nn.Conv2d(3, 3, 1)
    return self.lazy(self.conv(x))


def clip_weights(self: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        self.conv.weight.clamp_(-0.05, 0.05)
    return self.conv(x)


def add_to_state(self: Any, x: Tensor) -> Tensor:
    self.state.add_(1)
    return self.conv(x) + self.state


def own_generator(self: Any, x: Tensor) -> Tensor:
    return self.conv(x) + torch.rand((), generator=self.generator)


def count_in_object(self: Any, x: Tensor) -> Tensor:
    self.meter.n += 1
    return self.conv(x)


def all_random(self: Any, x: Tensor) -> Tensor:
    return self.conv(x) * random.random() + float(np.random.rand()) + torch.rand(1)


def switch_modes(self: Any, x: Tensor) -> Tensor:
    self.eval()
    self.conv.weight.requires_grad_(True)
    return self.conv(x)


def append_deep(self: Any, x: Tensor) -> Tensor:
    self.logs["shapes"].append(len(self.logs["shapes"]))
    self.queue.append(1)
    return self.conv(x)


SIDE_EFFECTS: dict[str, tuple[Any, Any]] = {
    "attributes, a list, a dict": (remember, lambda s: vars(s).update(history=[], table={})),
    "a buffer made in forward": (make_buffer, lambda s: None),
    "a layer made in forward": (make_layer, lambda s: None),
    "weights clipped": (clip_weights, lambda s: None),
    "a plain tensor counted up": (add_to_state, lambda s: setattr(s, "state", torch.zeros(1))),
    "a generator of its own": (
        own_generator,
        lambda s: setattr(s, "generator", torch.Generator().manual_seed(3)),
    ),
    "an object with a counter": (count_in_object, lambda s: setattr(s, "meter", types.SimpleNamespace(n=0))),
    "every random source": (all_random, lambda s: None),
    "modes switched": (switch_modes, lambda s: None),
    "a deep list, a deque": (
        append_deep,
        lambda s: vars(s).update(logs={"shapes": []}, queue=collections.deque()),
    ),
}


@pytest.mark.parametrize("name", SIDE_EFFECTS)
@pytest.mark.parametrize("inputs", [picture(), picture().to("meta")], ids=["real", "meta"])
def test_no_trace_is_left(name: str, inputs: Tensor) -> None:
    """Whatever the forward writes to, and whether or not it could be recorded."""
    model = Made(*SIDE_EFFECTS[name]).train()
    model.conv.weight.grad = torch.ones_like(model.conv.weight)
    model = model.to("meta") if inputs.is_meta else model
    with untouched(model):
        try:
            pr.plan(model, ["partial-padding"], example_inputs=inputs)
        except PadrewriteError:
            assert name in ("every random source", "a generator of its own") or inputs.is_meta


def test_statistics_and_counters() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4, momentum=None), nn.Dropout()
    ).train()
    with untouched(model):
        pr.record(model, example_inputs=picture())
    with untouched(model):
        pr.transform(model, ["partial-padding"], example_inputs=picture(), verify="full")


def test_no_trace_after_a_failure() -> None:
    def fail(self: Any, x: Tensor) -> Tensor:
        remember(self, self.conv(x))
        raise ValueError("too late")

    model = Made(fail, SIDE_EFFECTS["attributes, a list, a dict"][1])
    with untouched(model), pytest.raises(InputsError, match="ValueError: too late"):
        pr.record(model, example_inputs=picture())
    assert not model.conv._forward_hooks
    assert not model._forward_pre_hooks


class TestInputs:
    def test_written_to_by_the_forward(self) -> None:
        x = picture()
        pr.record(Made(lambda s, a: s.conv(a.mul_(2)).add_(a)), example_inputs=x)
        assert torch.equal(x, picture())

    def test_inside_an_object(self) -> None:
        """What is no container: left alone all the same, or refused."""
        box = types.SimpleNamespace(x=picture())
        model = Made(lambda s, b: s.conv(b.x.mul_(2)))
        try:
            pr.plan(model, ["partial-padding"], example_inputs=(box,))
        except PadrewriteError as error:
            assert "SimpleNamespace" in str(error)
        assert torch.equal(box.x, picture())

    @pytest.mark.parametrize("how", ["same tensor twice", "views of one"])
    def test_aliases(self, how: str) -> None:
        x = picture()
        given = (x, x) if how == "same tensor twice" else (x[:1], x[1:])
        model = Made(lambda s, a, b: s.conv(a) - s.conv(b * 2))
        graph = pr.record(model, example_inputs=given)
        assert torch.equal(replayed(graph, model, *given)[0], model(*given))

    def test_keeps_layout_and_gradient_flags(self) -> None:
        x = picture().contiguous(memory_format=torch.channels_last).requires_grad_()
        pr.record(Made(lambda s, a: s.conv(a)), example_inputs=x)
        assert x.requires_grad
        assert x.grad is None
        assert x.is_contiguous(memory_format=torch.channels_last)


@dataclass
class Features:
    map: Tensor
    pooled: list[Tensor]
    name: str = "features"


def sizes_by_hand(self: Any, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    pad = (-w % 4, -h % 4)
    y = self.conv(F.pad(x, (0, pad[0], 0, pad[1])))
    y = y.view(n, c, -1).transpose(1, 2).reshape(n, h + pad[1], -1, c).permute(0, 3, 1, 2)
    y = F.interpolate(y, size=(2 * h, w + 3), mode="bilinear")
    return y[..., : h + w // 2, 1:] + torch.arange(y.shape[-1] - 1, dtype=y.dtype) / w


def write_in_place(self: Any, x: Tensor) -> Tensor:
    y = self.conv(x).relu_()
    y[:, :1] += 1
    y.view(-1)[::3] = 0.5
    y[..., x.shape[-1] // 2 :].mul_(-1)
    out = torch.empty_like(y)
    torch.add(y, x, out=out)
    return self.conv(out)


FORWARDS: dict[str, Any] = {
    "plain": lambda s, x: s.conv(x),
    "sizes by hand": sizes_by_hand,
    "in place": write_in_place,
    "dataclass": lambda s, x: Features(s.conv(x), [s.conv(x).mean((2, 3)), x.amax()]),
    "dict of tuples": lambda s, x: {"a": (s.conv(x), None), "b": [x * x.shape[-1]]},
    "input returned": lambda s, x: (x, s.conv(x), x),
    "split": lambda s, x: s.conv(torch.cat(x.chunk(2, 0)[::-1], 0)) + torch.stack(x.unbind(1), 1).flip(-1),
    "adaptive": lambda s, x: F.interpolate(F.adaptive_avg_pool2d(s.conv(x), 3), size=x.shape[-2:]),
}


@pytest.mark.parametrize("name", FORWARDS)
def test_symbolic_graph_at_another_size(name: str) -> None:
    """Recorded once with symbolic sizes, run at four: bit-equal to eager each time."""
    from padrewrite.recording.tensors import tensors_in

    model = Made(FORWARDS[name]).eval()
    graph = pr.record(model, example_inputs=picture())
    assert graph.how == "symbolic", graph.notes
    for height, width in ((8, 9), (9, 8), (13, 20), (6, 7)):
        x = picture(height, width, seed=height)
        with torch.no_grad():
            wanted = [t.clone() for t in tensors_in(model(x.clone()))]
        got = replayed(graph, model, x.clone())
        assert len(got) == len(wanted)
        for a, b in zip(got, wanted):
            assert torch.equal(a, b)


def branch(self: Any, x: Tensor) -> Tensor:
    y = self.conv(x)
    return y * 2 if y.sum() > 0 else self.conv(-y)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_data_dependent_branch(sign: float) -> None:
    """Each branch as it ran, from the real inputs; the notes say why not symbolically."""
    model = Made(branch)
    with torch.no_grad():
        model.conv.weight.fill_(0.1)
        model.conv.bias.zero_()  # pyright: ignore
    x = picture().abs() * sign
    graph = pr.record(model, example_inputs=x)
    assert graph.how == "real inputs"
    assert any("symbolic" in note for note in graph.notes)
    assert list(graph.sites) == (["conv"] if sign > 0 else ["conv", "conv@1"])
    with torch.no_grad():
        assert torch.equal(replayed(graph, model, x)[0], model(x))


def through_numpy(self: Any, x: Tensor) -> Tensor:
    return self.conv(torch.from_numpy(self.conv(x).detach().numpy() * 2))


class Clock:
    """Every call of the forward is another function of its input."""

    ticks = 0


def by_the_clock(self: Any, x: Tensor) -> Tensor:
    Clock.ticks += 1
    return self.conv(x) if Clock.ticks == 1 else self.conv(x) + 1


@pytest.mark.parametrize("forward", [through_numpy, by_the_clock])
def test_what_torch_cannot_show(forward: Any) -> None:
    Clock.ticks = 0
    model = Made(forward)
    with untouched(model), pytest.raises(RecordError) as raised:
        pr.plan(model, ["partial-padding"], example_inputs=picture())
    text = str(raised.value)
    assert "Made could not be recorded" in text
    assert "symbolic" in text
    assert "real inputs" in text
    assert "transform(model.backbone, ...)" in text
    assert "leave example_inputs out" in text


class Waves(nn.Module):
    """Complex convolutions, as layer, transposed and functional, beside a real one."""

    def __init__(self) -> None:
        super().__init__()
        self.spectrum = nn.Conv2d(3, 4, 3, dtype=torch.complex64)
        self.up = nn.ConvTranspose2d(4, 4, 3, dtype=torch.complex64)
        self.real = nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        waves = self.up(self.spectrum(torch.fft.fft2(x)))
        return self.real(F.conv2d(waves, self.up.weight).abs())


def test_complex_convolutions_are_named() -> None:
    with pytest.raises(RecordError) as error:
        pr.analyze(Waves(), example_inputs=picture(16, 16))
    message = str(error.value)
    assert "spectrum, up, #conv2d.0: complex convolutions are not followed; convolve real and imaginary" in message
    assert "convolutions ran" not in message


class Lines(nn.Module):
    """Calls whose lines the sites must name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.kernel = nn.Parameter(torch.randn(3, 3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)  # first
        x = x.relu()
        return F.conv2d(x, self.kernel, padding=1)  # second


def test_sources_are_the_users_lines() -> None:
    code, start = inspect.getsourcelines(Lines)
    lines = {
        name: start + next(i for i, line in enumerate(code) if f"# {name}" in line)
        for name in ("first", "second")
    }
    sites = pr.record(Lines(), example_inputs=picture()).sites
    assert sites["conv"].source == f"test_trace.py:{lines['first']}"
    assert sites["#conv2d.0"].source == f"test_trace.py:{lines['second']}"
    in_a_loop = pr.record(nn.Sequential(Lines(), nn.ReLU()), example_inputs=picture()).sites
    assert in_a_loop["0.conv"].source == f"test_trace.py:{lines['first']}"


@pytest.mark.parametrize("symbolic", [True, False])
def test_a_call_that_no_line_of_the_model_makes_has_no_source(symbolic: bool) -> None:
    """Layers of torch alone: the line that records is the caller's, not the model's."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2))
    graph = trace.trace(model, Inputs.of(torch.randn(1, 3, 8, 8)), symbolic)
    assert graph.how == ("symbolic" if symbolic else "real inputs")
    assert graph.nodes is not None
    sources = [node.meta["source"] for node in graph.nodes.nodes if "source" in node.meta]
    assert sources == [None] * 4


def test_under_other_settings_of_the_caller() -> None:
    """inference_mode, autocast, another default dtype or device: recorded and verified all the same."""
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)).eval(), picture()
    for context in (
        torch.no_grad(),
        torch.inference_mode(),
        torch.autocast("cpu", torch.bfloat16),
        torch.device("meta"),
    ):
        with context:
            new = pr.transform(model, ["partial-padding"], example_inputs=x, verify="full")
        found = pr.report(new).verification
        assert found is not None
        assert found.ok, str(context)
    torch.set_default_dtype(torch.float64)
    try:
        assert pr.verify(pr.transform(model, ["partial-padding"], example_inputs=x)).ok
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_recording_for_these_inputs_alone_needs_no_symbols(monkeypatch: pytest.MonkeyPatch) -> None:
    """Symbols take nearly all of the time of a recording; checks run their recordings on the inputs at hand."""
    x, model = picture(11, 13), nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
    graph = trace.trace(model, Inputs.of(x), symbolic=False)
    assert graph.how == "real inputs"
    assert torch.equal(replayed(graph, model, x)[0], model(x))
    new = pr.transform(model, ["output-stride{stride=1}"], example_inputs=x, verify="off")

    def fail(*_args: Any) -> Any:
        raise AssertionError("recorded with symbols")

    monkeypatch.setattr(trace, "_follow_symbolic", fail)
    found = pr.verify(new, example_inputs=x)
    assert found.ok
    assert {e.contract for e in found.evidence} >= {"reference", "grid(2)"}


def test_a_recording_for_these_inputs_alone_may_still_need_symbols(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: Any) -> Any:
        raise RuntimeError("not followed")

    monkeypatch.setattr(trace, "_follow_real", fail)
    monkeypatch.setitem(trace._HOW, fail, "on the real inputs")
    model, x = nn.Conv2d(3, 4, 3), picture()
    assert trace.trace(model, Inputs.of(x), symbolic=False).how == "symbolic"
