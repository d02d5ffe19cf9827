"""One benchmark step of a model: an inference forward, or a whole training step, on a private copy."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from torch import nn
from torch.utils._pytree import tree_map

from padrewrite.benchmarking.outputs import describe, mean_square, tensors_in
from padrewrite.errors import InputsError, ModelError

Phase = Literal["eval", "train"]
Step = Callable[[], object]

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True)
class Setting:
    """Where and in which form models and inputs run."""

    device: torch.device
    dtype: torch.dtype | None = None
    """Type of all floating point parameters, buffers and inputs; None leaves each as it is."""
    channels_last: bool = False


@dataclass(frozen=True)
class Call:
    """Arguments of a model's forward."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict[str, Any])

    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of all tensors in the arguments, positional ones first."""
        return tuple(tuple(t.shape) for t in tensors_in((self.args, self.kwargs)))


def prepare_inputs(inputs: object, setting: Setting) -> Call:
    """Copy example inputs (a tensor, a tuple of positional or a dict of keyword arguments) into a setting.

    Raises:
        InputsError: the inputs are of another kind, hold no tensor, or hold a tensor without data.
    """
    if not isinstance(inputs, (torch.Tensor, tuple, dict)):
        raise InputsError(
            f"bench wants inputs as a tensor, a tuple of positional or a dict of keyword arguments; "
            f"got {type(inputs).__name__}."
        )
    tensors = list(tensors_in(inputs))
    if not tensors:
        raise InputsError("bench found no tensor in the inputs.")
    if any(t.is_meta for t in tensors):
        raise InputsError("bench cannot time inputs on the meta device: they hold no data; give real tensors.")
    placed = tree_map(lambda leaf: _placed(leaf, setting), inputs)
    if isinstance(placed, dict):
        return Call(kwargs=cast("dict[str, Any]", placed))
    return Call(args=cast("tuple[Any, ...]", placed) if isinstance(placed, tuple) else (placed,))


def _placed(leaf: object, setting: Setting) -> object:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    tensor = leaf.detach().clone().to(setting.device)
    if setting.dtype is not None and tensor.is_floating_point():
        tensor = tensor.to(setting.dtype)
    if setting.channels_last and tensor.dim() in _CHANNELS_LAST:
        tensor = tensor.contiguous(memory_format=_CHANNELS_LAST[tensor.dim()])
    return tensor


def private_copy(name: str, model: object, setting: Setting) -> nn.Module:
    """A copy of a model in a setting; the model itself stays as it is.

    Raises:
        ModelError: not a module, a compiled wrapper, or a module that cannot be copied.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"bench: '{name}' is a {type(model).__name__}, not a torch.nn.Module.")
    if isinstance(model, torch._dynamo.OptimizedModule):
        raise ModelError(f"bench: '{name}' is already compiled; give {name}._orig_mod, and bench compiles it itself.")
    try:
        twin = copy.deepcopy(model)
    except Exception as error:
        raise ModelError(f"bench: '{name}' cannot be copied: {type(error).__name__}: {error}") from error
    twin = twin.to(device=setting.device, dtype=setting.dtype)
    if setting.channels_last:
        for parameter in twin.parameters():
            if parameter.dim() in _CHANNELS_LAST:
                parameter.data = parameter.data.contiguous(memory_format=_CHANNELS_LAST[parameter.dim()])
    return twin


def make_step(name: str, model: nn.Module, call: Call, phase: Phase, *, forward: Step | None = None) -> Step:
    """The work that is timed.

    ``eval``: a forward in eval mode without grad. ``train``: in train mode a forward, a mean-square loss over
    every output tensor that requires grad, backward, and an SGD step. Its learning rate is 0: the same
    arithmetic and memory traffic as any other rate, but every round starts from the same weights.

    Args:
        name: of the variant, for error messages.
        model: sets the mode, and gives the parameters to train.
        call: the arguments of forward.
        forward: what to run in place of ``model``, e.g. its compiled form.

    Raises:
        ModelError: (when the step runs) nothing in the output of a ``train`` step requires grad.
    """
    model.train(phase == "train")
    run = cast("Callable[..., object]", model if forward is None else forward)
    if phase == "eval":

        def infer() -> object:
            with torch.no_grad():
                return run(*call.args, **call.kwargs)

        return infer
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.0) if parameters else None

    def train() -> object:
        with torch.enable_grad():
            output = run(*call.args, **call.kwargs)
            loss = mean_square(output)
            if loss is None or optimizer is None:
                raise ModelError(_nothing_to_train(name, output))
            torch.autograd.backward(loss)
        optimizer.step()
        # Gradients are dropped here and not before the next forward, so that none are held while the other
        # runs.
        optimizer.zero_grad(set_to_none=True)
        return None

    return train


def _nothing_to_train(name: str, output: object) -> str:
    return (
        f"bench train: no tensor in the output of '{name}' requires grad (it returned a {describe(output)}). "
        f"Unfreeze a parameter, return an attached tensor, or give phases=('eval',)."
    )
