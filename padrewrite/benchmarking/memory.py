"""Memory of one step: what autograd keeps for backward, and the peak on a CUDA device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from padrewrite.benchmarking.outputs import tensors_in


def saved_bytes(step: Callable[[], object], model: nn.Module, inputs: object) -> int:
    """Bytes of the storages that autograd saves while ``step`` runs eagerly, each counted once.

    Storages of the model's parameters and buffers and of ``inputs`` are not counted: they exist anyway.
    """
    present = {_storage_key(t) for t in (*model.parameters(), *model.buffers(), *tensors_in(inputs))}
    # Keeps what was saved alive until the count, else a freed address could come back and be taken for the
    # old one.
    saved: dict[tuple[str, int], torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        # An output that its own graph node held would never be freed.
        kept = tensor.detach()
        saved.setdefault(_storage_key(kept), kept)
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return sum(t.untyped_storage().nbytes() for key, t in saved.items() if key not in present)


def _storage_key(tensor: torch.Tensor) -> tuple[str, int]:
    return str(tensor.device), tensor.untyped_storage().data_ptr()


def peak_bytes(step: Callable[[], object], device: torch.device) -> int | None:
    """Peak bytes allocated during ``step``, above what was allocated before; None where not known."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = step()
    torch.cuda.synchronize(device)
    del result
    return torch.cuda.max_memory_allocated(device) - before
