"""How many convolutions a network really runs, counted where every route must pass: the dispatcher.

The counter shares nothing with the recorder. It sees aten calls, whatever Python did above them (modules,
functions, scripted code, ``_conv_forward`` called by hand), so it tells when a recording missed one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_DATA = ("input", "self", "X", "qx")
_WEIGHT = ("weight", "W")


@dataclass(frozen=True)
class ConvolutionCall:
    """One convolution as the dispatcher saw it: after explicit pads and most uneven string paddings."""

    op: str
    weight_shape: tuple[int, ...]
    input_shape: tuple[int, ...]


class ConvolutionCounter(TorchDispatchMode):
    """Context manager; ``calls`` lists every convolution run inside it, in order, transposed ones included.

    With grad mode on or under ``no_grad`` the composite ops arrive as ``aten.convolution``, under
    ``inference_mode`` as ``aten.conv2d`` and its like. Each convolution is seen at one level only, since the
    mode is off while an op that it dispatched runs. Convolutions of a backward pass do not count. A complex
    convolution counts three times: torch computes it as three real ones.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[ConvolutionCall] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        slots = func._schema.arguments
        name = func._schema.name.split("::")[-1]
        if "conv" in name and "backward" not in name:
            given = {slot.name: value for slot, value in zip(slots, args, strict=False)} | kwargs
            data = next((given[key] for key in _DATA if key in given), None)
            weight = next((given[key] for key in _WEIGHT if key in given), None)
            if isinstance(data, Tensor) and isinstance(weight, Tensor):
                self.calls.append(ConvolutionCall(str(func), tuple(weight.shape), tuple(data.shape)))
        return func(*args, **kwargs)


def count_convolutions(run: Callable[[], Any], inference: bool = False) -> list[ConvolutionCall]:
    """The convolutions of one ``run()``, without gradients."""
    quiet = torch.inference_mode() if inference else torch.no_grad()
    with quiet, ConvolutionCounter() as counter:
        run()
    return counter.calls
