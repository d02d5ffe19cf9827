"""Real bugs of real tools, one test a row: each fails on the behaviour that its report describes."""

from __future__ import annotations

import copy
import io
import os
import pickle
import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from plain import circular_width, far, layer, partial
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
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
    assert [(d.site, d.code) for d in plan.decisions] == [("conv", "shared-module"), ("conv@1", "shared-module")]


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
        for other in (pickle.loads(pickle.dumps(new)), copy.deepcopy(new), torch.load(buffer, weights_only=False)):
            assert torch.equal(other(picture(height=7)), new(picture(height=7)))
            assert repr(other) == repr(new)
            assert pr.verify(other).ok
            assert torch.equal(pr.revert(other)(picture()), F.conv2d(picture(), new[0].weight, new[0].bias, padding=1))  # pyright: ignore


def test_row_08_wrong_axis() -> None:
    """pytorch#37844: circular padding on the wrong axis; height, width and their paddings all differ."""
    model = nn.Sequential(nn.Conv2d(3, 4, (5, 3), padding=(2, 1), stride=(1, 2)))
    x = picture(height=7, width=12)
    new = pr.transform(model, CIRCULAR, example_inputs=x)
    assert far(new(x), layer(circular_width, x, model[0])) < 1e-5
    other = pr.transform(model, ["padding-mode{mode=circular,axes=[-2]}"], example_inputs=x)
    flipped = nn.Conv2d(3, 4, (3, 5), padding=(1, 2), stride=(2, 1))
    with torch.no_grad():
        flipped.weight.copy_(model[0].weight.mT)
        flipped.bias.copy_(model[0].bias)  # pyright: ignore
    assert far(other(x), layer(circular_width, x.mT, flipped).mT) < 1e-5


def test_row_09_stale_padding() -> None:
    """pytorch#51711: changing a reflect convolution leaves its precomputed padding stale."""
    model = one(padding="same", dilation=2, padding_mode="circular")
    new: Any = pr.transform(model, REFLECT)
    wanted = F.conv2d(F.pad(picture(), (2, 2, 2, 2), mode="reflect"), new[0].weight, new[0].bias, dilation=2)
    assert far(new(picture()), wanted) < 1e-5
    assert pr.revert(new)[0].padding_mode == "circular"  # pyright: ignore
    assert torch.equal(new(picture()), model(picture()))


class TestRow10:
    """NVIDIA/partialconv: stale state of every kind."""

    def test_no_nan_in_half(self) -> None:
        """The epsilon of the ratio underflows in float16."""
        for dtype in (torch.float16, torch.bfloat16):
            new = pr.transform(one(padding=3).to(dtype), PARTIAL)
            assert torch.isfinite(new(picture(1, 2, 2).to(dtype))).all()

    def test_after_a_masked_call(self) -> None:
        new: Any = pr.transform(one(), PARTIAL)
        before = new(picture())
        mask = torch.ones(2, 1, 11, 13)
        mask[..., 3:] = 0
        masked, _ = new[0](picture(), mask)
        assert not torch.equal(masked, before)
        assert torch.equal(new(picture()), before)

    def test_after_another_dtype_and_size(self) -> None:
        model = one()
        new: Any = pr.transform(model, PARTIAL)
        first = new(picture())
        wide = new.double()(picture(height=30).double())
        assert far(wide, layer(partial, picture(height=30).double(), copy.deepcopy(model).double()[0])) < 1e-12
        assert torch.equal(new.float()(picture()), first)

    def test_training_after_inference_mode(self) -> None:
        new = pr.transform(one(), PARTIAL)
        with torch.inference_mode():
            new(picture())
        new(picture()).sum().backward()
        assert all(p.grad is not None for p in new.parameters())

    def test_reflected_padding_is_not_corrected(self) -> None:
        model = one(padding_mode="reflect")
        plan = pr.plan(model, PARTIAL, allow_no_effect=True)
        assert [(d.status, d.code) for d in plan.decisions] == [("kept", "non-zero-padding")]

    def test_grouped_masks(self) -> None:
        """The count is of positions; dividing by the wrong number of channels scales everything."""
        model = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, groups=2))
        new: Any = pr.transform(model, PARTIAL)
        x = picture(channels=4)
        out, mask = new[0](x, torch.ones(2, 1, 11, 13))
        assert far(out, partial(x, model[0].weight, model[0].bias, 1, 1, 1, 2)) < 1e-5
        assert mask.all()

    @pytest.mark.filterwarnings("ignore")
    def test_export_after_a_warm_call(self) -> None:
        new = pr.transform(one().eval(), PARTIAL)
        new(picture())
        dynamic = torch.export.Dim.DYNAMIC
        shapes = ({2: dynamic, 3: dynamic},)
        exported = torch.export.export(new, (picture(),), dynamic_shapes=shapes).module()
        assert far(exported(picture(2, 20, 9)), new(picture(2, 20, 9))) < 1e-6

    def test_nothing_cached_is_pickled(self) -> None:
        new = pr.transform(one(), PARTIAL)
        cold = len(pickle.dumps(new))
        new(picture(height=64, width=64))
        assert len(pickle.dumps(new)) == cold
        assert set(dict(new.named_buffers())) == set()


def test_row_12_device_dtype_and_identity() -> None:
    """mosaicml/composer#1290, mosaicml/composer#43: new modules on another device; dead parameters in the optimizer."""
    for change in (lambda m: m.to("meta"), lambda m: m.double(), lambda m: m.to(memory_format=torch.channels_last)):
        model = change(Branchy().eval())
        forms = [(p.dtype, p.device, p.stride()) for p in model.parameters()]
        ids = [id(p) for p in model.parameters()]
        x = picture().to(model.kernel.device, model.kernel.dtype)
        new = pr.transform(model, PARTIAL, example_inputs=x, inplace=True)
        assert [(p.dtype, p.device, p.stride()) for p in new.parameters()] == forms
        assert [id(p) for p in new.parameters()] == ids


def test_row_13_rules_fire_at_random() -> None:
    """onnxscript#2878: a rule fires in 6 of 20 runs. The same sites in the same order, of any hash seed."""
    tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    script = (
        f"import sys; sys.path.insert(0, {tests!r}); import padrewrite as pr\n"
        "from writing.nets import *\n"
        "plan = pr.plan(Branchy().eval(), [*CIRCULAR, *PARTIAL], example_inputs=picture(), include=['stem', '#*', 're:n.*'])\n"
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
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr


class Uneven(nn.Module):
    """Asymmetric padding: folded into nothing, made by F.pad before a layer without padding."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (2, 0, 0, 1)))


def test_row_15_asymmetric_padding() -> None:
    """pytorch#17150, pytorch#3867: an explicit pad and a convolution without padding are one padded convolution."""
    model = Uneven()
    x = picture()
    plan = pr.plan(model, PARTIAL, example_inputs=x)
    assert plan.decisions[0].before["padding"] == ((0, 1), (2, 0))
    ring = F.pad(torch.ones(1, 1, 11, 13), (2, 0, 0, 1))
    count = F.conv2d(ring, torch.ones(1, 1, 3, 3))
    bare = F.conv2d(F.pad(x, (2, 0, 0, 1)), model.conv.weight)
    bias = model.conv.bias.reshape(1, -1, 1, 1)  # pyright: ignore
    assert far(pr.apply(model, plan)(x), bare * 9 / count + bias) < 1e-5
    wrapped = torch.cat([x[..., -2:], x], -1)
    goal = F.conv2d(F.pad(wrapped, (0, 0, 0, 1)), model.conv.weight, model.conv.bias)
    assert far(pr.transform(model, CIRCULAR, example_inputs=x)(x), goal) < 1e-5


@pytest.mark.parametrize("model", [nn.Sequential(nn.Linear(3, 3)), one(padding=0), one(padding_mode="circular")])
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
    assert "batch norms keep statistics computed under the old padding" in " ".join(str(pr.report(model)).split())


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


def test_row_20_field_wrong_on_branches() -> None:
    """rfa_toolbox, torch-receptive-field#6, torch-receptive-field#17: what no padding reaches is found by brute force.

    End to end, the outputs that ``verify`` calls interior are those whose gradient support, in a branched and
    dilated network, never leaves the image.
    """

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 3, 3, padding=2, dilation=2), nn.Conv2d(3, 3, (5, 1), padding=(2, 0), stride=2)
            self.c = nn.Conv2d(3, 3, 3, padding=1, stride=2)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.a(x)) + self.b(x)

    model, (height, width) = Branches().eval(), (24, 20)
    new = pr.transform(model, PARTIAL, example_inputs=picture(1, height, width))
    found = pr.verify(new, example_inputs=picture(1, height, width))
    interior = next(e for e in found.evidence if e.site == "end to end" and e.contract == "interior")
    bare = copy.deepcopy(model).double()
    with torch.no_grad():
        for parameter in bare.parameters():
            parameter.fill_(1.0)
    margin = 8  # more than any window reaches: the same network on a larger image, at whole strides
    frame = torch.zeros(1, 3, height + 2 * margin, width + 2 * margin, dtype=torch.float64)
    frame[..., margin:-margin, margin:-margin] = 1
    outside, inside = (1 - frame).requires_grad_(), 0
    out = bare(outside)[0, 0, margin // 2 : -margin // 2, margin // 2 : -margin // 2]
    assert out.shape == model(picture(1, height, width)).shape[2:]
    for value in out.flatten():
        (support,) = torch.autograd.grad(value, outside, retain_graph=True)
        inside += not bool((support * (1 - frame)).any())
    assert found.ok
    assert inside > 0
    assert interior.positions == 3 * inside
