"""Carrying weights from a layer to what replaces it: carriers by name, and how much of the kernel each loses.

A carrier turns a layer's weight and bias into the parameters of an assembly, and says which dense kernel those
parameters compute; the engine measures the difference. It works in float64 on the CPU, so that it does not depend on
where a model happens to be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import log10

import torch
import torch.nn.functional as F
from torch import Tensor

from padrewrite.ops.assembly import Assembly, Carry
from padrewrite.ops.conv import Conv, emit_conv
from padrewrite.ops.cornering import project, unfold
from padrewrite.ops.factoring import Factors, alternate, decompose, refold, truncate
from padrewrite.ops.separable import ORDERS, mid_of, with_mid
from padrewrite.ops.window import Window

EXACT = 1e-10
"""Relative errors below this are rounding."""

State = dict[str, Tensor]
"""New parameters by their name below the layer."""


@dataclass(frozen=True)
class Carrier:
    """One way to carry weights over. Weights are float64 on the CPU, of the old layer's shape."""

    settle: Callable[[Conv, Assembly, Tensor], Assembly]
    """The assembly with everything resolved that depends on the weight."""
    carry: Callable[[Conv, Assembly, Tensor, Tensor | None], State]
    """All parameters of the assembly, from weight and bias."""
    kernel: Callable[[Conv, Assembly, Mapping[str, Tensor]], Tensor]
    """The dense kernel that these parameters compute, with the taps of the assembly's window."""


@dataclass(frozen=True)
class Carried:
    """New parameters, and what was lost on the way."""

    weight: Tensor
    bias: Tensor | None
    """That they were made from."""
    state: State
    error: float
    """Of the kernel: square root of the square sum of the differences, relative to that of the old kernel."""
    output_error: float
    """The same of the outputs for white noise, border included."""

    @property
    def bound(self) -> float:
        """The larger error rounded up to two digits, as a contract states it."""
        return round_up(max(self.error, self.output_error, EXACT))


def carry_over(old: Conv, new: Assembly, weight: Tensor, bias: Tensor | None) -> Carried:
    """The parameters of ``new`` from those of the layer, in the layer's type and on its device, and the error made.

    Args:
        new: settled, with a ``carry``.
    """
    state = convert(old, new, weight, bias)
    exact = weight.detach().double().cpu()
    kernel = carrier_of(new).kernel(old, new, {name: t.double().cpu() for name, t in state.items()})
    dense = new.dense(old)
    wanted = placed(exact, old.window, dense.window)
    error, noise_error = relative(kernel - wanted, wanted), _on_noise(dense, wanted, kernel)
    return Carried(weight.detach().clone(), None if bias is None else bias.detach().clone(), state, error, noise_error)


def convert(old: Conv, new: Assembly, weight: Tensor, bias: Tensor | None) -> State:
    """The parameters of ``new`` alone."""
    given = (weight.detach().double().cpu(), None if bias is None else bias.detach().double().cpu())
    return {name: t.to(weight.device, weight.dtype) for name, t in carrier_of(new).carry(old, new, *given).items()}


def of_checkpoint(old: Conv, new: Assembly, weight: Tensor | None, bias: Tensor | None) -> State:
    """The parameters of ``new`` that a checkpoint of the old layer determines, or that a part of one does.

    Without the weight it is the bias alone, without a bias that the old layer had no bias.
    """
    state = {} if weight is None else convert(old, new, weight, bias)
    if weight is None and bias is not None:
        return {f"{biased(new)}.bias": bias}
    return {name: t for name, t in state.items() if bias is not None or not old.bias or not name.endswith(".bias")}


def why_unfit(old: Conv, new: Assembly, weight: Tensor) -> str | None:
    """What is wrong with a weight in a checkpoint, if something is; ``{}`` stands for its key."""
    wanted = (old.out_channels, old.in_channels // old.groups, *old.kernel)
    if tuple(weight.shape) != wanted:
        given = f"{tuple(weight.shape)} in the checkpoint, {wanted} in the layer that was replaced"
        return f"size mismatch for {{}}: {given}."
    if new.carry is None or (not weight.is_meta and bool(weight.isfinite().all())):
        return None
    fact = "has no values (it is on meta)" if weight.is_meta else "is not finite everywhere"
    return (
        f"{{}} {fact} in the checkpoint, so nothing can be carried over to the layer's new parameters. "
        "Load a checkpoint with finite values, or one of the rewritten model."
    )


def biased(new: Assembly) -> str:
    """The convolution that gets the old layer's bias: the last of the first branch."""
    first = new.branches[0].name
    return [name for name in new.convs if name.startswith(f"{first}.")][-1]


def settled(old: Conv, new: Assembly, weight: Tensor) -> Assembly:
    """``new`` with what depends on the weight resolved."""
    return carrier_of(new).settle(old, new, weight.detach().double().cpu())


def carrier_of(new: Assembly) -> Carrier:
    assert new.carry is not None
    return CARRIERS[new.carry.name]


def round_up(value: float) -> float:
    """``value`` at two significant digits, not below it."""
    if value <= 0:
        return 0.0
    step = 10.0 ** (int(log10(value) // 1) - 1)
    rounded = float(f"{value:.2g}")
    return rounded if rounded >= value else float(f"{rounded + step:.2g}")


def centred(weight: Tensor, shape: torch.Size) -> Tensor:
    """``weight`` with zeros around it, as many before as after."""
    amounts: list[int] = []
    for have, want in zip(reversed(weight.shape[2:]), reversed(shape[2:])):
        amounts += [(want - have) // 2] * 2
    return F.pad(weight, amounts)


def placed(weight: Tensor, old: Window, new: Window) -> Tensor:
    """A kernel of window ``old`` where it lies in that of ``new``, with zeros around it. Rates may differ."""
    amounts: list[int] = []
    for axis in reversed(range(old.rank)):
        room = new.kernel[axis] - old.kernel[axis]
        # A kernel that is as large lies where it lay; of a single tap, the padding tells nothing about the rate.
        before = new.lo[axis] // new.dilation[axis] - old.lo[axis] // old.dilation[axis] if room else 0
        amounts += [before, room - before]
    return F.pad(weight, amounts)


def relative(difference: Tensor, wanted: Tensor) -> float:
    """Root of the square sum of ``difference`` over that of ``wanted``."""
    size = float(wanted.norm())
    return float(difference.norm()) / size if size else float(difference.norm())


def probe(op: Conv) -> Tensor:
    """The noise on which output errors are measured: always the same, at a size where many outputs see the border."""
    w = op.window
    sizes = [max(span, lo + 1, hi + 1) + 4 * stride for span, stride, lo, hi in zip(w.span, w.stride, w.lo, w.hi)]
    return torch.randn(1, op.in_channels, *sizes, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _on_noise(op: Conv, wanted: Tensor, kernel: Tensor) -> float:
    noise = probe(op)
    old, new = (emit_conv(noise, dense, None, op) for dense in (wanted, kernel))
    return relative(new - old, old)


# Separable kernels


def _grouped(weight: Tensor, groups: int) -> Tensor:
    return weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])


def _whole(old: Conv, new: Assembly, weight: Tensor) -> Tensor:
    """The kernel to be factorised, group by group: the old one, with zeros around it if the new one reaches further."""
    shape = torch.Size((*weight.shape[:2], *new.window.kernel))
    return _grouped(centred(weight, shape), old.groups)


def _settle_mid(old: Conv, new: Assembly, weight: Tensor) -> Assembly:
    """The fewest middle channels that keep the wanted share of the kernel's square sum, where a share was given."""
    carry = new.carry
    assert carry is not None
    if carry.energy is None:
        return new
    kernel = _whole(old, new, weight)
    lost = (1 - carry.energy) * float(kernel.square().sum())
    wholes = {branch.name: decompose(kernel, branch.name) for branch in new.branches}
    # One branch alone needs that many; two together need no more.
    high = min(_fewest(values.square().sum(0), lost) for _, values, _ in wholes.values())
    low = high if len(wholes) == 1 else 1
    while low < high:
        middle = (low + high) // 2
        errors: list[float] = []
        alternate(kernel, middle, errors, wholes, lost)
        low, high = (low, middle) if errors[-1] <= lost else (middle + 1, high)
    return replace(with_mid(new, low * old.groups), carry=replace(carry, energy=None))


def _fewest(squares: Tensor, lost: float) -> int:
    """How many of the largest must be kept to lose no more."""
    total = float(squares.sum())
    kept = squares.cumsum(0) >= total - lost - 1e-12 * total
    return int(kept.int().argmax()) + 1


def _factorise(old: Conv, new: Assembly, weight: Tensor, bias: Tensor | None) -> State:
    kernel, mid = _whole(old, new, weight), mid_of(new) // old.groups
    names = [branch.name for branch in new.branches]
    if len(names) == 1:
        factors = {names[0]: truncate(kernel, names[0], mid)}
    elif _method(new.carry) == "svd":
        # The second branch takes what the first cannot; a single pass, each by its own best rank.
        first = truncate(kernel, names[0], mid)
        rest = kernel - refold(first.product, names[0], kernel.shape)
        factors = {names[0]: first, names[1]: truncate(rest, names[1], mid)}
    else:
        factors = alternate(kernel, mid)
    state: State = {}
    for name, found in factors.items():
        inner, outer = _kernels(found, name, kernel.shape, float(kernel.norm()))
        state |= {f"{name}.0.weight": inner, f"{name}.1.weight": outer}
    for name, conv in new.convs.items():
        if conv.bias:
            given = bias is not None and name == biased(new)
            state[f"{name}.bias"] = bias if given and bias is not None else weight.new_zeros(conv.out_channels)
    return state


def _method(carry: Carry | None) -> str:
    return carry.method if carry is not None else ""


def _kernels(factors: Factors, branch: str, shape: torch.Size, scale: float) -> tuple[Tensor, Tensor]:
    """The two convolutions' weights, of equal norms; a branch that adds nothing keeps an inner one to learn from."""
    groups, outer, inner = shape[:3]
    mid = factors.inner.shape[1]
    first, second = ORDERS[branch]
    size = max(float(factors.outer.norm()), 1e-3 * scale)
    ratio = (size / (float(factors.inner.norm()) or 1.0)) ** 0.5
    ratio = ratio or 1.0
    before = (factors.inner * ratio).reshape(groups * mid, inner, shape[3 + first])
    after = (factors.outer / ratio).reshape(groups, outer, shape[3 + second], mid)
    after = after.permute(0, 1, 3, 2).reshape(groups * outer, mid, shape[3 + second])
    return before.unsqueeze(3 - first), after.unsqueeze(3 - second)


def _multiplied(old: Conv, new: Assembly, state: Mapping[str, Tensor]) -> Tensor:
    """The dense kernel of both branches: sums over the middle channels, group by group."""
    total: Tensor | None = None
    for branch in new.branches:
        inner, outer = (_grouped(state[f"{branch.name}.{n}.weight"], old.groups) for n in (0, 1))
        product = torch.einsum("gmcyx,gomvw->goycxvw", inner, outer)
        g, o, y, c, x, v, w = product.shape
        dense = product.permute(0, 1, 3, 2, 5, 4, 6).reshape(g * o, c, y * v, x * w)
        total = dense if total is None else total + dense
    assert total is not None
    return total


CARRIERS: Mapping[str, Carrier] = {
    "corner": Carrier(lambda old, new, weight: new, project, unfold),
    "separable": Carrier(_settle_mid, _factorise, _multiplied),
}
