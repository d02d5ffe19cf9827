"""How many convolutions really run, counted at the dispatcher: independent of what the recorder saw."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Dispatched(TorchDispatchMode):
    """Context manager; ``convolutions`` counts the forward convolutions run inside, transposed ones included.

    The mode is off while an op that it saw runs, so that each convolution is seen once, at whatever level.
    """

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.split("::")[-1]
        self.convolutions += "conv" in name and "backward" not in name
        return func(*args, **(kwargs or {}))
