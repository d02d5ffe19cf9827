"""What a rewrite does to the modules it changes: real bugs of real tools, a test each."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from plain import far, layer, partial
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from untouched import untouched
from writing.nets import CIRCULAR, PARTIAL, REFLECT, Branchy, branchy_partial, picture

import padrewrite as pr
from padrewrite.errors import NoEffectError


def one(**kwargs: Any) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3, **{"padding": 1, **kwargs}))


def test_row_01_hooks_are_dropped() -> None:
    """pytorch#105445: graph modules drop hooks, and spectral_norm with them (error 9999)."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        parametrizations.weight_norm(nn.Conv2d(4, 4, 3, padding=1)),
        parametrizations.spectral_norm(nn.Conv2d(4, 4, 3, padding=1)),
    )
    seen: list[str] = []
    model[0].register_forward_pre_hook(lambda m, a: (a[0] * 2,))
    model[1].register_forward_hook(lambda m, a, o: o + 1)
    model[2].register_full_backward_hook(lambda m, i, o: seen.append("back"))
    model.eval()
    new = pr.transform(model, PARTIAL, example_inputs=picture())
    x = picture().requires_grad_()
    y = layer(partial, x * 2, model[0])
    y = partial(y, model[1].weight, model[1].bias, 1, 1) + 1  # pyright: ignore
    wanted = partial(y, model[2].weight, model[2].bias, 1, 1)  # pyright: ignore
    assert far(new(x), wanted) < 1e-5
    new(x).sum().backward()
    assert seen == ["back"]
    power: Any = new[2]  # pyright: ignore
    before = power.parametrizations.weight[0]._u.clone()
    new.train()(picture())
    assert not torch.equal(before, power.parametrizations.weight[0]._u), "the power iteration stopped"


@pytest.mark.parametrize("inplace", [False, True])
def test_row_02_keys_are_lost(inplace: bool) -> None:
    """pytorch#99407, pytorch#94575: state_dict keys lost (314 become 262), or prefixed."""
    model = Branchy()
    original = copy.deepcopy(model.state_dict())
    new = pr.transform(model, [*REFLECT, *CIRCULAR], example_inputs=picture(), inplace=inplace)
    assert list(new.state_dict()) == list(original)
    assert new.state_dict()._metadata.keys() == original._metadata.keys()  # pyright: ignore
    result = new.load_state_dict(original, strict=True)
    assert not result.missing_keys
    assert not result.unexpected_keys


class Shared(nn.Module):
    """One layer in two places, of which one has an explicit pad before it."""

    def __init__(self, padded: bool) -> None:
        super().__init__()
        self.conv, self.padded = nn.Conv2d(3, 3, 3, padding=1), padded

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).tanh()
        return self.conv(F.pad(x, (2, 2, 2, 2)) if self.padded else x)


def test_row_03_shared_module() -> None:
    """pytorch#104593, pytorch#197539: a shared convolution is rewritten once, wrong for the other call."""
    model = Shared(padded=False)
    new = pr.transform(model, PARTIAL, example_inputs=picture())
    x = picture()
    assert far(new(x), layer(partial, layer(partial, x, model.conv).tanh(), model.conv)) < 1e-5
    with untouched(model), pytest.raises(NoEffectError, match="shared-module"):
        pr.transform(model, PARTIAL, example_inputs=picture(), include="conv@1", inplace=True)
    model = Shared(padded=True)
    plan = pr.plan(model, PARTIAL, example_inputs=picture(), allow_no_effect=True)
    assert [(d.site, d.code) for d in plan.decisions] == [
        ("conv", "shared-module"),
        ("conv@1", "shared-module"),
    ]


def test_row_04_modes_frozen() -> None:
    """pytorch#68190, pytorch#151726: train and eval mode frozen or flipped."""
    for mode in (True, False):
        model = Branchy().train(mode)
        new: Any = pr.transform(model, PARTIAL, example_inputs=picture())
        assert [m.training for m in new.modules()] == [mode] * len(list(new.modules()))
        for training in (True, False, True, False):
            count = int(new.norm.num_batches_tracked)
            a, b = (new.train(training)(picture()) for _ in range(2))
            assert torch.equal(a, b) != training
            assert new.norm.num_batches_tracked == count + 2 * training
        assert far(new(picture()), branchy_partial(new, picture())) < 1e-5


def test_row_05_pickles_unfaithfully() -> None:
    """pytorch#198077: what comes out of pickle is another model."""
    for passes in (PARTIAL, CIRCULAR, REFLECT):
        new = pr.transform(one(), passes)
        buffer = io.BytesIO()
        torch.save(new, buffer)
        buffer.seek(0)
        for other in (
            pickle.loads(pickle.dumps(new)),
            copy.deepcopy(new),
            torch.load(buffer, weights_only=False),
        ):
            assert torch.equal(other(picture(height=7)), new(picture(height=7)))
            assert repr(other) == repr(new)
            assert pr.verify(other).ok
            assert torch.equal(
                pr.revert(other)(picture()), F.conv2d(picture(), new[0].weight, new[0].bias, padding=1)
            )  # pyright: ignore


def test_row_12_device_dtype_and_identity() -> None:
    """mosaicml/composer#1290, mosaicml/composer#43: new modules on another device; dead parameters in the optimizer."""
    for change in (
        lambda m: m.to("meta"),
        lambda m: m.double(),
        lambda m: m.to(memory_format=torch.channels_last),
    ):
        model = change(Branchy().eval())
        forms = [(p.dtype, p.device, p.stride()) for p in model.parameters()]
        ids = [id(p) for p in model.parameters()]
        x = picture().to(model.kernel.device, model.kernel.dtype)
        new = pr.transform(model, PARTIAL, example_inputs=x, inplace=True)
        assert [(p.dtype, p.device, p.stride()) for p in new.parameters()] == forms
        assert [id(p) for p in new.parameters()] == ids


@pytest.mark.parametrize(
    "model", [nn.Sequential(nn.Linear(3, 3)), one(padding=0), one(padding_mode="circular")]
)
def test_row_16_silent_no_op(model: nn.Module) -> None:
    """VainF/Torch-Pruning#136, peft#1959: nothing is done and nothing is said."""
    with untouched(model), pytest.raises(NoEffectError, match="partial-padding would change nothing"):
        pr.transform(model, PARTIAL, inplace=True)


def test_row_17_old_statistics() -> None:
    """partialconv#16: NaN after swapping under an old optimizer. Steps stay finite; the report warns of batch norm."""
    model = Branchy()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(6):
        if step == 3:
            pr.transform(model, PARTIAL, example_inputs=picture(), inplace=True)
        optimizer.zero_grad()
        model(picture()).square().mean().backward()
        optimizer.step()
    assert all(torch.isfinite(p).all() for p in model.parameters())
    text = " ".join(str(pr.report(model)).split())
    assert "1 batch norm keeps statistics computed before the rewrite" in text


@pytest.mark.parametrize("branches", [1, 2])
def test_row_07_factorisation_drops_numbers(branches: int) -> None:
    """tensorly/torch#27, #32: a factorised convolution computed at dilation 1, and with its padding on both axes."""
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 4, (5, 4), stride=(1, 2), padding=(3, 1), dilation=(2, 3), groups=2).double()
    with torch.no_grad():
        parts = [torch.randn(shape, dtype=torch.float64) for shape in ((4, 4), (3, 5))]
        conv.weight.copy_(torch.einsum("ox,cy->ocyx", *parts))
    model, x = nn.Sequential(nn.ZeroPad2d((0, 2, 1, 0)), conv), torch.randn(1, 6, 15, 17, dtype=torch.float64)
    new = pr.transform(model, [f"separable-kernel{{mid=2,branches={branches}}}"], example_inputs=x)
    assert type(new[1]) is pr.nn.GlobalConv2d
    assert (new[1].stride, new[1].dilation) == ((1, 2), (2, 3))
    assert far(new(x), model(x)) < 1e-12
    y = torch.randn(2, 6, 16, 12, dtype=torch.float64)
    assert far(new(y), model(y)) < 1e-12
