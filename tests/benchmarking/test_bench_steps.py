"""Private copies, and what one inference or training step does and leaves behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from padrewrite.benchmarking.steps import Call, Setting, make_step, prepare_inputs, private_copy
from padrewrite.errors import InputsError, ModelError

CPU = Setting(torch.device("cpu"))


class Recorder(nn.Module):
    """A small net that notes the circumstances of each forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.seen: list[tuple[bool, bool]] = []

    def forward(self, x: torch.Tensor, *, gain: float = 1.0) -> dict[str, torch.Tensor]:
        self.seen.append((self.training, torch.is_grad_enabled()))
        return {"out": self.norm(self.conv(x)) * gain, "index": torch.arange(3)}


def test_inputs_as_tensor_tuple_and_dict() -> None:
    x = torch.ones(1, 3, 4, 4)
    assert len(prepare_inputs(x, CPU).args) == 1
    assert prepare_inputs((x, 2.0), CPU).args[1] == 2.0
    named = prepare_inputs({"x": x, "gain": 2.0}, CPU)
    assert named.args == ()
    assert set(named.kwargs) == {"x", "gain"}
    assert prepare_inputs((x, {"deep": [torch.ones(2)]}), CPU).sizes() == ((1, 3, 4, 4), (2,))


def test_inputs_are_copied_and_converted() -> None:
    setting = Setting(torch.device("cpu"), torch.float64, channels_last=True)
    image, index = torch.ones(2, 3, 4, 5, requires_grad=True), torch.arange(3)
    placed, kept, volume = prepare_inputs((image, index, torch.ones(1, 2, 3, 4, 5)), setting).args
    assert placed.dtype is torch.float64
    assert placed.is_contiguous(memory_format=torch.channels_last)
    assert not placed.requires_grad
    assert volume.is_contiguous(memory_format=torch.channels_last_3d)
    assert kept.dtype is torch.int64
    kept += 1
    assert index.tolist() == [0, 1, 2]
    assert image.dtype is torch.float32


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([torch.ones(1)], "got list"),
        ((1, 2), "no tensor"),
        (torch.ones(1, device="meta"), "meta device"),
    ],
)
def test_unusable_inputs(inputs: object, message: str) -> None:
    with pytest.raises(InputsError, match=message):
        prepare_inputs(inputs, CPU)


def test_a_copy_leaves_the_model_alone() -> None:
    model = Recorder()
    twin = private_copy("original", model, Setting(torch.device("cpu"), torch.float64, channels_last=True))
    weight = twin.get_parameter("conv.weight")
    assert weight.dtype is torch.float64
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert model.conv.weight.dtype is torch.float32
    assert model.conv.weight.is_contiguous()


class Stubborn(nn.Module):
    def __deepcopy__(self, memo: object) -> Stubborn:
        raise RuntimeError("one of a kind")


def test_models_that_cannot_be_used() -> None:
    with pytest.raises(ModelError, match="'rewritten' is a function, not"):
        private_copy("rewritten", lambda: 0, CPU)
    with pytest.raises(ModelError, match=r"'original' is already compiled; give original\._orig_mod"):
        private_copy("original", torch.compile(nn.ReLU(), backend="eager"), CPU)
    with pytest.raises(ModelError, match="'rewritten' cannot be copied: RuntimeError: one of a kind"):
        private_copy("rewritten", Stubborn(), CPU)


def test_an_eval_step_is_inference_without_grad() -> None:
    model = Recorder().train()
    output = make_step("original", model, Call((torch.ones(1, 3, 4, 4),), {"gain": 3.0}), "eval")()
    assert model.seen == [(False, False)]
    assert isinstance(output, dict)
    assert not output["out"].requires_grad


def test_a_train_step_trains_and_keeps_the_weights() -> None:
    model = Recorder().eval()
    before = {name: p.clone() for name, p in model.named_parameters()}
    gradients: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        parameter.register_hook(lambda grad, name=name: gradients.setdefault(name, grad.clone()))
    step = make_step("original", model, Call((torch.randn(2, 3, 4, 4),)), "train")
    with torch.no_grad():
        step()
    assert model.seen == [(True, True)]
    # A bias before a batch norm has gradient zero up to rounding; all others learn.
    assert set(gradients) == set(before)
    assert gradients["norm.weight"].abs().max() > 0.1
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert all(p.grad is None for p in model.parameters())


def test_a_step_runs_the_forward_it_is_given() -> None:
    model = Recorder()
    step = make_step("original", model, Call(), "eval", forward=lambda: "compiled")
    assert step() == "compiled"
    assert model.seen == []


class Detached(Recorder):
    def forward(self, x: torch.Tensor, *, gain: float = 1.0) -> dict[str, torch.Tensor]:
        return {"out": super().forward(x)["out"].detach()}


@pytest.mark.parametrize("kind", ["frozen", "detached"])
def test_nothing_to_train_is_named(kind: str) -> None:
    model = Recorder().requires_grad_(False) if kind == "frozen" else Detached()
    step = make_step("rewritten", model, Call((torch.ones(1, 3, 4, 4),)), "train")
    with pytest.raises(ModelError, match=r"output of 'rewritten' requires grad \(it returned a dict with \(1, 4,"):
        step()
