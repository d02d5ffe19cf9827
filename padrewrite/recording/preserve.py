"""Running a model's forward so that it leaves no trace: not in the model, its state, its mode, nor the RNG."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils.stateless import _reparametrize_module

from padrewrite.recording.snapshot import Snapshot


@contextmanager
def preserved(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Within, forward calls write to copies; afterwards every module and random generator is as it was.

    Yields:
        The parameters and buffers in use: name to the copy that the model sees.
    """
    snapshot = Snapshot(model)
    state = {name: t.detach().clone() for name, t in [*model.named_parameters(), *model.named_buffers()]}
    with torch.no_grad(), _random_state():
        try:
            if state:
                with _reparametrize_module(model, state, tie_weights=True):
                    yield state
            else:
                yield state
        finally:
            snapshot.restore()


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
