"""What torch itself says of positions: gradients of single outputs, and NaNs in the place of made-up values.

Nothing here knows of the analyses or of the maps that they fold. Weights of 1, no biases, float64: nothing cancels, and
a gradient that is not zero means "reads".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.fx as fx
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from padrewrite.fuzzing.networks import Interpolate, Merge, NetSpec, Step

Rows = tuple[tuple[int, ...], ...]
Op = Callable[[Tensor], Tensor]
"""(N, 1, inputs) to (N, 1, outputs), each sample by itself."""
NAN = float("nan")
NOISE = 1e-9
"""Weights below are rounding; the least true weight in these tests is far above."""


# One axis


def gradients(op: Op, n: int) -> Tensor:
    """``(outputs, n)``: by how much each output moves with each input; sample i pulls output i back."""
    m = op(torch.zeros(1, 1, n, dtype=torch.float64)).shape[-1]
    _, pull = torch.func.vjp(op, torch.zeros(m, 1, n, dtype=torch.float64))
    (found,) = pull(torch.eye(m, dtype=torch.float64)[:, None])
    return found[:, 0]


def responses(op: Op, n: int) -> Tensor:
    """``(outputs, n)`` by running the unit vectors: for maxima, and where torch's backward is not its forward's."""
    return op(torch.eye(n, dtype=torch.float64)[:, None])[:, 0].T


def rows_of(weights: Tensor) -> Rows:
    """Per output the inputs of some weight."""
    return tuple(tuple(int(j) for j in row.nonzero()) for row in weights.abs() > NOISE)


def size_of(op: Op, n: int) -> int | None:
    """Number of outputs for ``n`` inputs; None if torch refuses them."""
    try:
        return op(torch.zeros(1, 1, n, dtype=torch.float64)).shape[-1]
    except (RuntimeError, ValueError):
        return None


# Networks


def flatten_weights(model: nn.Module) -> nn.Module:
    """Weights 1, biases 0, norms the identity, in eval mode and float64."""
    for module in model.modules():
        for name, value in module.named_parameters(recurse=False):
            value.data.fill_(0.0 if name == "bias" else 1.0)
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_var is not None:
            module.running_mean.zero_()  # pyright: ignore
            module.running_var.fill_(1.0)
    return model.double().eval()


class Convolutions(TorchFunctionMode):
    """Keeps the result of every convolution, in the order of the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.results: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if (name.startswith("conv") or name == "symmetric_conv") and isinstance(result, Tensor):
            self.results.append(result)
        return result


def tensors_of(model: nn.Module, x: Tensor) -> list[Tensor]:
    """The results of all convolution calls, then the model's outputs."""
    with Convolutions() as seen:
        output = model(x)
    return [*seen.results, *(output if isinstance(output, (tuple, list)) else [output])]


class EveryTensor(fx.Interpreter):
    """Runs a recorded graph and keeps what every call returns."""

    def __init__(self, model: nn.Module, graph: fx.Graph, constants: Mapping[str, Tensor]) -> None:
        super().__init__(model, garbage_collect_values=False, graph=graph)
        self.constants = constants

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        return self.constants[target] if target in self.constants else super().get_attr(target, args, kwargs)

    def tensors(self, x: Tensor, nodes: Sequence[fx.Node]) -> list[Tensor]:
        self.run(x)
        return [self.env[node] for node in nodes]


def sensitivities(model: Callable[[Tensor], Sequence[Tensor]], x: Tensor, which: int) -> Tensor:
    """``(*positions, *input positions)``: the gradient of each position of tensor ``which``, summed over channels.

    Sample p of a batch as large as the tensor has positions pulls back position p, so samples must not mix.
    """
    with torch.no_grad():
        spatial = model(x)[which].shape[2:]
    count = spatial.numel()
    batch = x[:1].expand(count, *x.shape[1:]).clone().requires_grad_()
    target = model(batch)[which]
    pull = torch.eye(count, dtype=x.dtype).reshape(count, 1, *spatial).expand(target.shape)
    if not target.requires_grad:
        return torch.zeros(*spatial, *x.shape[2:], dtype=x.dtype)
    (found,) = torch.autograd.grad(target, batch, pull)
    return found.sum(1).reshape(*spatial, *x.shape[2:])


def reached_by_gradient(model: nn.Module, inputs: Sequence[Tensor], layer: str) -> list[set[tuple[int, ...]]]:
    """Per input its positions (along the last two dimensions) that move the middle of a layer's last output."""
    given = [x.double().requires_grad_() for x in inputs]
    seen: list[Tensor] = []
    handle = model.double().get_submodule(layer).register_forward_hook(lambda *call: seen.append(call[2]))
    model(*given)
    handle.remove()
    middle = seen[-1][(0, slice(None), *(n // 2 for n in seen[-1].shape[2:]))].sum()
    gradients = torch.autograd.grad(middle, given, allow_unused=True, materialize_grads=True)
    return [{tuple(place[-2:]) for place in g.nonzero().tolist()} for g in gradients]


class Marking(TorchFunctionMode):
    """Runs a forward with NaN in the place of made-up values: padding with zeros or another constant.

    With ``edges`` in the place of all that the border changes: also what is reflected, wrapped, repeated or clamped,
    and what a pool leaves out.
    """

    def __init__(self, edges: bool = False) -> None:
        super().__init__()
        self.edges = edges

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("conv1d", "conv2d", "conv3d"):
            return _marked_conv(func, *args, **kwargs)
        if name == "pad":
            return self._pad(func, *args, **kwargs)
        if name.startswith("avg_pool"):
            return self._avg_pool(func, *args, **kwargs)
        if name == "interpolate":
            return self._interpolate(func, *args, **kwargs)
        if name.startswith("conv_transpose") and self.edges:
            return _marked_transpose(func, *args, **kwargs)
        if name.startswith("max_pool") and self.edges:
            raise NotImplementedError("edges of maxima are not marked")
        return func(*args, **kwargs)

    def _pad(self, func: Any, x: Tensor, pad: Any, mode: str = "constant", value: Any = None) -> Tensor:
        return func(x, pad, "constant", NAN) if mode == "constant" or self.edges else func(x, pad, mode)

    def _avg_pool(
        self,
        func: Any,
        x: Tensor,
        kernel: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil: Any = False,
        counted: Any = True,
    ) -> Tensor:
        wanted = func(x, kernel, stride, padding, ceil, counted).shape[2:]
        kernels, strides, pads = (_per_axis(v, x.dim() - 2) for v in (kernel, stride or kernel, padding))
        padded = F.pad(x, _flat([(p, p) for p in pads]), value=NAN if counted or self.edges else 0.0)
        # A last window may hang over the end of the padding, where there is nothing.
        reached = [(m - 1) * s + k for m, s, k in zip(wanted, strides, kernels)]
        more = [(0, max(0, end - n)) for end, n in zip(reached, padded.shape[2:])]
        result = func(F.pad(padded, _flat(more), value=NAN if self.edges else 0.0), kernel, stride)
        return result[(..., *(slice(m) for m in wanted))]

    def _interpolate(self, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        # A neighbour of weight 0 is not read, but 0*NaN is NaN: flags are carried apart.
        flags = func(x.isnan().to(x.dtype), *args, **kwargs).abs() > NOISE
        result = func(x.nan_to_num(), *args, **kwargs).masked_fill(flags, NAN)
        if self.edges and "linear" in kwargs["mode"] and not kwargs.get("align_corners"):
            for axis in range(2, x.dim()):
                shape = [-1 if d == axis else 1 for d in range(x.dim())]
                result = result.masked_fill(_clamped(x.shape, axis, kwargs).reshape(shape), NAN)
        return result


def _clamped(shape: Sequence[int], axis: int, numbers: dict[str, Any]) -> Tensor:
    """Outputs of a half-pixel linear resize along ``axis`` that hold a ramp where it should go on."""
    n, place = shape[axis], axis - 2
    size, factor = (
        None if v is None else _per_axis(v, len(shape) - 2)[place]
        for v in (numbers.get("size"), numbers.get("scale_factor"))
    )
    options: dict[str, Any] = {"mode": "linear", "recompute_scale_factor": numbers.get("recompute_scale_factor")}
    line = F.interpolate(torch.arange(float(n), dtype=torch.float64)[None, None], size, factor, **options)[0, 0]
    ratio = n / len(line) if factor is None or options["recompute_scale_factor"] else 1 / factor
    return (line - ((torch.arange(len(line)) + 0.5) * ratio - 0.5)).abs() > NOISE


def _marked_conv(
    func: Any,
    x: Tensor,
    w: Tensor,
    b: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    rank = w.dim() - 2
    if padding == "same":
        totals = [d * (k - 1) for k, d in zip(w.shape[2:], _per_axis(dilation, rank))]
        pairs = [(t // 2, t - t // 2) for t in totals]
    else:
        pairs = [(p, p) for p in _per_axis(0 if padding == "valid" else padding, rank)]
    return func(F.pad(x, _flat(pairs), value=NAN), w, b, stride, 0, dilation, groups)


def _marked_transpose(
    func: Any,
    x: Tensor,
    w: Tensor,
    b: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    extra: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """NaN where an input that went on past the border would be read."""
    rank = w.dim() - 2
    wanted = func(x, w, b, stride, padding, extra, groups, dilation).shape[2:]
    more = [k * d for k, d in zip(w.shape[2:], _per_axis(dilation, rank))]
    longer = F.pad(x, _flat([(m, m) for m in more]), value=NAN)
    starts = [m * s for m, s in zip(more, _per_axis(stride, rank))]
    result = func(longer, w, b, stride, padding, extra, groups, dilation)
    return result[(..., *(slice(start, start + m) for start, m in zip(starts, wanted)))]


def untouched(model: Callable[[Tensor], Sequence[Tensor]], x: Tensor, which: int) -> Tensor:
    """``(*positions)`` of tensor ``which``: where no window on the way from the input touches a border."""
    with torch.no_grad(), Marking(edges=True):
        values = model(torch.ones_like(x))[which]
    return ~values.isnan()[0].any(0)


def _flat(pairs: Sequence[tuple[int, int]]) -> list[int]:
    return [side for pair in reversed(list(pairs)) for side in pair]


def _per_axis(value: Any, rank: int) -> list[Any]:
    return list(value) if isinstance(value, (tuple, list)) else [value] * rank


# Random networks


def without_cancelling(spec: NetSpec) -> NetSpec:
    """The network with sums in the place of differences and linear in the place of cubic resizes, all weights >= 0.

    Nearest by a factor that changes no size (3 pixels by 1.3), or merely doubles it, is not the same in all of torch's
    kernels: there the ratio becomes that of the sizes.
    """
    steps: list[Step] = []
    for step, wanted in zip(spec.steps, spec.shapes[1:]):
        if isinstance(step, Merge) and step.how == "sub":
            step = replace(step, how="add")
        if isinstance(step, Interpolate) and step.mode == "bicubic":
            step = replace(step, mode="bilinear")
        if isinstance(step, Interpolate) and step.mode == "nearest" and step.factors is not None:
            given = spec.shapes[step.reads[0]]
            step = replace(step, recompute=True if any(m in (n, 2 * n) for n, m in zip(given, wanted)) else None)
        steps.append(step)
    return replace(spec, steps=tuple(steps), batch=1)


def flat_net(spec: NetSpec) -> nn.Module:
    """Its module with weights of 1."""
    return flatten_weights(spec.build())
