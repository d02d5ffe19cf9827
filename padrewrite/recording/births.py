"""What a forward makes below the torch-function level: convolutions that ran, and tensors that were born."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_CONVS = (
    *("convolution", "_convolution", "convolution_overrideable", "cudnn_convolution", "mkldnn_convolution"),
    *("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
)


class Births(TorchDispatchMode):
    """Counts convolution calls and remembers the storages created while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = 0
        self._storages: set[int] = set()
        self._alive: list[Any] = []

    def made(self, tensor: Tensor) -> bool:
        """True if the tensor's memory was allocated while this was active."""
        return storage_of(tensor) in self._storages

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.namespace == "aten" and func._schema.name.removeprefix("aten::") in _CONVS:
            self.convolutions += 1
        given = {storage_of(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.layout == torch.strided:
                storage = storage_of(tensor)
                if storage not in given and storage not in self._storages:
                    self._storages.add(storage)
                    self._alive.append(tensor.untyped_storage())
        return result


def storage_of(tensor: Tensor) -> int:
    """Identity of a tensor's memory; 0 for layouts that have none of their own."""
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided else 0  # pyright: ignore[reportPrivateUsage]
