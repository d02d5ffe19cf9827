"""Running a model's forward so that it leaves no trace: not in the model, its buffers, its mode, nor the RNG."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.stateless import _reparametrize_module  # pyright: ignore[reportPrivateUsage]


@contextmanager
def preserved(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Within, forward calls write to copies; afterwards every module and random generator is as it was.

    Yields:
        The buffers in use: name to the copy that the model sees.
    """
    kept = [(module, dict(vars(module)), _containers(module)) for module in model.modules()]
    buffers = {name: b.detach().clone() for name, b in model.named_buffers()}
    with torch.no_grad(), _random_state(), _swapped(model, buffers):
        try:
            yield buffers
        finally:
            for module, attributes, containers in kept:
                _restore(module, attributes, containers)


def _swapped(model: nn.Module, buffers: dict[str, Tensor]) -> Any:
    return _reparametrize_module(model, buffers, tie_weights=True) if buffers else nullcontext()


def _containers(module: nn.Module) -> list[tuple[Any, Any]]:
    """Shallow copies of the plain containers a forward may fill; torch's own registries are swapped elsewhere."""
    own = {"_parameters", "_buffers", "_modules"}
    return [
        (value, value.copy())
        for name, value in vars(module).items()
        if name not in own and isinstance(value, (dict, list, set))
    ]


def _restore(module: nn.Module, attributes: dict[str, Any], containers: list[tuple[Any, Any]]) -> None:
    current = vars(module)
    for name in [n for n in current if n not in attributes]:
        del current[name]
    current.update(attributes)
    for live, saved in containers:
        live.clear()
        live.extend(saved) if isinstance(live, list) else live.update(saved)


@contextmanager
def _random_state() -> Iterator[None]:
    numpy = sys.modules.get("numpy")
    python_state = random.getstate()
    numpy_state = numpy.random.get_state() if numpy is not None else None
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python_state)
            if numpy is not None:
                numpy.random.set_state(numpy_state)
