"""Class swaps and retuned layers: what a rewritten layer keeps, and how it is copied, stored and put back."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from plain import circular_width, far, layer, partial
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils import weight_norm as old_weight_norm
from untouched import difference, facts

import padrewrite as pr

from .nets import CIRCULAR, PARTIAL, REFLECT, OwnConvForward, OwnForward, StockSubclass, picture

LAYERS: dict[str, Any] = {
    "stock": lambda: nn.Conv2d(3, 4, 3, padding=1),
    "strided, dilated, wide": lambda: nn.Conv2d(3, 4, (3, 5), stride=2, padding=(2, 4), dilation=2),
    "no bias": lambda: nn.Conv2d(3, 4, 3, padding=1, bias=False),
    "subclass": lambda: StockSubclass(3, 4, 3, padding=1),
    "own forward": lambda: OwnForward(3, 4, 3),
    "weight_norm": lambda: parametrizations.weight_norm(nn.Conv2d(3, 4, 3, padding=1)),
    "spectral_norm": lambda: parametrizations.spectral_norm(nn.Conv2d(3, 4, 3, padding=1)).eval(),
    "old weight_norm": lambda: old_weight_norm(nn.Conv2d(3, 4, 3, padding=1)),
    "weight_norm on own forward": lambda: parametrizations.weight_norm(OwnForward(3, 4, 3)),
}
WAYS = {"partial": (PARTIAL, partial), "circular": (CIRCULAR, circular_width)}
OWN = ("own forward", "weight_norm on own forward")


def net(kind: str) -> nn.Sequential:
    return nn.Sequential(OrderedDict(body=LAYERS[kind](), act=nn.ReLU())).eval()


def rewritten(kind: str, way: str = "partial", **kwargs: Any) -> tuple[nn.Module, nn.Module]:
    model = net(kind)
    return model, pr.transform(model, WAYS[way][0], example_inputs=picture(), **kwargs)


def wanted(model: Any, x: Tensor, way: str) -> Tensor:
    body = model.body
    padding = (1, 1) if isinstance(body, OwnForward) else body.padding
    return WAYS[way][1](x, body.weight, body.bias, body.stride, padding, body.dilation).relu()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", LAYERS)
def test_kept_by_a_rewrite(kind: str, way: str) -> None:
    """Values, class, keys in order, parameters' forms; the original is as before."""
    model = net(kind)
    before = facts(model)
    new: Any = pr.transform(model, WAYS[way][0], example_inputs=picture())
    assert difference(before, facts(model)) is None
    x = picture(height=8, width=15)
    assert far(new(x), wanted(model, x, way)) < 1e-5
    assert far(new(x), model(x)) > 1e-3, "the rewrite made no difference: nothing is tested"
    assert isinstance(new, nn.Sequential)
    assert isinstance(
        new.body, type(model.body).__mro__[0] if kind not in OWN else OwnForward
    ) or parametrize.is_parametrized(new.body)
    assert list(new.state_dict()) == list(model.state_dict())
    assert [n for n, _ in new.named_modules()] == [n for n, _ in model.named_modules()]
    for (n1, p1), (n2, p2) in zip(new.named_parameters(), model.named_parameters(), strict=True):
        assert (n1, p1.requires_grad, p1.dtype, p1.stride()) == (n2, p2.requires_grad, p2.dtype, p2.stride())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", LAYERS)
def test_revert_leaves_nothing(kind: str, way: str) -> None:
    """Every class, attribute and their order as in a model that was never rewritten, with current values."""
    model, new = rewritten(kind, way, verify="off")
    with torch.no_grad():
        for parameter in new.parameters():
            parameter.mul_(0.9)
    pr.revert(new)
    for a, b in zip(new.modules(), model.modules(), strict=True):
        assert type(a) is type(b)
        assert list(vars(a)) == list(vars(b))
    model.load_state_dict(new.state_dict())
    assert torch.equal(new(picture()), model(picture()))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [k for k in LAYERS if k != "old weight_norm"])
def test_deepcopy(kind: str, way: str) -> None:
    _, new = rewritten(kind, way, verify="off")
    copied = copy.deepcopy(new)
    assert torch.equal(copied(picture()), new(picture()))
    assert [type(m) for m in copied.modules()] == [type(m) for m in new.modules()]
    assert repr(copied) == repr(new)
    assert not {id(p) for p in copied.parameters()} & {id(p) for p in new.parameters()}
    pr.revert(copied)
    assert far(new(picture()), wanted(net_like(new), picture(), way)) < 1e-5, "the copy shares its structure"


def net_like(new: Any) -> nn.Module:
    return new


def test_copies_after_a_forward_with_old_weight_norm() -> None:
    """It leaves a computed weight on the module, which deepcopy refuses; transform copies all the same."""
    model = net("old weight_norm").train()
    model(picture()).sum().backward()
    held = vars(model.body)["weight"]
    new = pr.transform(model, PARTIAL)
    assert vars(model.body)["weight"] is held
    assert far(new(picture()), wanted(model, picture(), "partial")) < 1e-5


PLAIN_KINDS = ["stock", "subclass", "own forward", "old weight_norm"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", PLAIN_KINDS)
def test_pickle_and_save(kind: str, way: str) -> None:
    _, new = rewritten(kind, way, verify="off")
    new = new.eval().requires_grad_(False)
    buffer = io.BytesIO()
    torch.save(new, buffer)
    buffer.seek(0)
    for other in (pickle.loads(pickle.dumps(new)), torch.load(buffer, weights_only=False)):
        assert [type(m) for m in other.modules()] == [type(m) for m in new.modules()]
        assert torch.equal(other(picture()), new(picture()))
        assert pr.report(other).to_json() == pr.report(new).to_json()


REVERTED_ELSEWHERE = """
import sys
sys.path.insert(0, {tests!r})
import torch, padrewrite as pr
bad = []
for name, model, new, x in torch.load({file!r}, weights_only=False):
    if torch.equal(new(x), model(x)):
        bad.append(name + ": the rewrite was lost on the way")
    pr.revert(new)
    if not torch.equal(new(x), model(x)) or [type(m) for m in new.modules()] != [type(m) for m in model.modules()]:
        bad.append(f"{{name}}: still a {{type(new.body).__name__}}")
sys.exit("; ".join(bad) or 0)
"""


def test_revert_in_another_process(tmp_path: Path) -> None:
    """A stored model knows how to go back where nothing was rewritten before it was loaded."""
    pairs = [
        (f"{kind}, {way}", *rewritten(kind, way, verify="off")) for kind in PLAIN_KINDS[:3] for way in WAYS
    ]
    torch.save([(name, model, new, picture()) for name, model, new in pairs], tmp_path / "models.pt")
    script = REVERTED_ELSEWHERE.format(tests=str(Path(__file__).parents[1]), file=str(tmp_path / "models.pt"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr


class Reduced(nn.Conv2d):
    """Pickles in a way of its own."""

    def __reduce__(self) -> Any:
        return _reduced, (self.in_channels, self.out_channels), self.__dict__


def _reduced(in_channels: int, out_channels: int) -> Reduced:
    made = Reduced(in_channels, out_channels, 3, padding=1)
    made.extra = "made by its own function"  # pyright: ignore
    return made


def test_pickles_a_class_with_its_own_reduce() -> None:
    new = pr.transform(nn.Sequential(Reduced(3, 4, 3, padding=1)), PARTIAL)
    for other in (copy.deepcopy(new), pickle.loads(pickle.dumps(new))):
        assert isinstance(other[0], Reduced)
        assert torch.equal(other(picture()), new(picture()))


class Registered(nn.Conv2d):
    """A class that keeps a register of its subclasses and wants each to give a key."""

    known: ClassVar[dict[str, type]] = {}

    def __init_subclass__(cls, *, key: str, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Registered.known[key] = cls


class FirstEntry(Registered, key="first"):
    pass


def test_a_class_that_minds_its_subclasses() -> None:
    """Making a subclass must not enter the user's register nor fail in it; or the site is refused with a reason."""
    model = nn.Sequential(FirstEntry(3, 4, 3, padding=1))
    plan = pr.plan(model, PARTIAL, allow_no_effect=True)
    new = pr.apply(model, plan)
    assert Registered.known == {"first": FirstEntry}
    if plan.decisions[0].status == "rewritten":
        assert far(new(picture()), layer(partial, picture(), model[0])) < 1e-5


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["stock", "own forward"])
def test_parametrized_after_the_rewrite(kind: str, way: str) -> None:
    """weight_norm on a rewritten layer works, revert takes away our class only, and it can be removed again."""
    model, new = rewritten(kind, way)
    goal = wanted(model, picture(), way)
    parametrizations.weight_norm(new.body)  # pyright: ignore
    assert far(new(picture()), goal) < 1e-5
    pr.revert(new)
    assert parametrize.is_parametrized(new.body)  # pyright: ignore
    assert far(new(picture()), model(picture())) < 1e-5
    parametrize.remove_parametrizations(new.body, "weight")  # pyright: ignore
    assert type(new.body) is type(model.body)
    assert far(new(picture()), model(picture())) < 1e-5


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["weight_norm", "weight_norm on own forward"])
def test_parametrization_removed_after_the_rewrite(kind: str, way: str) -> None:
    model, new = rewritten(kind, way)
    parametrize.remove_parametrizations(new.body, "weight")  # pyright: ignore
    assert far(new(picture()), wanted(model, picture(), way)) < 1e-5
    assert far(copy.deepcopy(new)(picture()), wanted(model, picture(), way)) < 1e-5
    pr.revert(new)
    assert type(new.body) is (OwnForward if kind in OWN else nn.Conv2d)
    assert far(new(picture()), model(picture())) < 1e-5


def test_parametrized_before_and_after() -> None:
    """Two parametrizations, one older than the rewrite and one younger."""
    _, new = rewritten("weight_norm")
    model = copy.deepcopy(pr.revert(copy.deepcopy(new)))
    parametrize.register_parametrization(new.body, "bias", nn.Identity())  # pyright: ignore
    assert far(new(picture()), wanted(model, picture(), "partial")) < 1e-5
    pr.revert(new)
    assert far(new(picture()), model(picture())) < 1e-5
    parametrize.remove_parametrizations(new.body, "bias")  # pyright: ignore
    parametrize.remove_parametrizations(new.body, "weight")  # pyright: ignore
    assert type(new.body) is nn.Conv2d


class Layer:
    """A mixin that somebody stacks on a module's class, as fully_shard does."""

    def summed(self: Any) -> int:
        return self.out_channels + 1


def test_a_foreign_class_on_top_stays() -> None:
    model, new = rewritten("stock")
    body: Any = new.body
    body.__class__ = type("Stacked", (Layer, type(body)), {})
    assert far(new(picture()), wanted(model, picture(), "partial")) < 1e-5
    pr.revert(new)
    assert body.summed() == 5
    assert isinstance(body, Layer)
    assert not isinstance(body, pr.nn.PartialConv2d)
    assert torch.equal(new(picture()), model(picture()))


def test_two_transforms_then_revert() -> None:
    """Wrap the width first, then scale what zeros are left; one revert takes both back."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1))
    once = pr.transform(model, CIRCULAR)
    twice: Any = pr.transform(once, PARTIAL)
    x = picture()
    wrapped = torch.cat([x[..., -1:], x, x[..., :1]], -1)
    goal = partial(wrapped, twice[0].weight, twice[0].bias, 1, (1, 0))
    assert far(twice(x), goal) < 1e-5
    assert far(once(x), layer(circular_width, x, model[0])) < 1e-5, "the second transform changed its input"
    assert [p.name for plan in pr.report(twice).plans for p in plan.passes] == [
        "padding-mode",
        "partial-padding",
    ]
    assert pr.verify(twice).ok
    pr.revert(twice)
    assert type(twice[0]) is nn.Conv2d
    assert list(vars(twice[0])) == list(vars(model[0]))
    assert torch.equal(twice(x), model(x))


@pytest.mark.parametrize("passes", [[*CIRCULAR, *PARTIAL], [*REFLECT, *CIRCULAR], [*CIRCULAR, *REFLECT]])
@pytest.mark.parametrize("kind", ["stock", "subclass", "own forward", "weight_norm"])
def test_two_passes_at_once_equal_two_transforms(kind: str, passes: list[str]) -> None:
    model = net(kind)
    at_once = pr.transform(model, passes, example_inputs=picture())
    stepwise = model
    for one in passes:
        stepwise = pr.transform(stepwise, [one], example_inputs=picture())
    x = picture(height=9, width=14)
    assert torch.equal(at_once(x), stepwise(x))
    for new in (at_once, stepwise):
        assert type(pr.revert(new).body) is type(model.body)  # pyright: ignore
        assert torch.equal(new(x), model(x))


class TestRetune:
    """A stock layer whose padding mode torch itself can do keeps its very class."""

    def test_stays_stock(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 4, (3, 5), padding=(1, 4), dilation=(1, 2)))
        new: Any = pr.transform(model, REFLECT)
        assert type(new[0]) is nn.Conv2d
        x = torch.nn.functional.pad(picture(), (4, 4, 1, 1), mode="reflect")
        goal = torch.nn.functional.conv2d(x, model[0].weight, model[0].bias, dilation=(1, 2))
        assert far(new(picture()), goal) < 1e-5
        fresh = nn.Conv2d(3, 4, (3, 5), padding=(1, 4), dilation=(1, 2), padding_mode="reflect")
        assert list(new[0]._reversed_padding_repeated_twice) == list(fresh._reversed_padding_repeated_twice)
        assert repr(new[0]) == repr(fresh)

    def test_there_and_back(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 4, 3, padding="same", dilation=2, padding_mode="replicate"))
        before = facts(model)
        pr.transform(model, ["padding-mode{mode=zeros}"], inplace=True)
        assert (
            far(
                model(picture()),
                torch.nn.functional.conv2d(picture(), model[0].weight, model[0].bias, padding=2, dilation=2),
            )
            < 1e-5
        )
        pr.revert(model)
        assert difference(before, facts(model)) is None


@pytest.mark.parametrize("kind", ["stock", "subclass", "own forward"])
def test_extra_attributes_of_the_user_survive(kind: str) -> None:
    model: Any = net(kind)
    model.body.note = {"who": "user"}
    new: Any = pr.transform(model, PARTIAL, example_inputs=picture())
    assert new.body.note == {"who": "user"}
    assert new.body.note is not model.body.note
    if kind == "subclass":
        assert new.body.describe() == "mine:4"


def test_own_conv_forward_is_run() -> None:
    """A ``_conv_forward`` of the user's is not replaced but redirected: its halved weight still counts."""
    model = nn.Sequential(OwnConvForward(3, 4, 3, padding=1))
    new = pr.transform(model, PARTIAL, example_inputs=picture())
    goal = partial(picture(), model[0].weight * 0.5, model[0].bias, 1, 1)
    assert far(new(picture()), goal) < 1e-5
