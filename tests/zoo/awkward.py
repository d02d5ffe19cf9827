"""Hand-written networks, each awkward in a way that its docstring names."""

from __future__ import annotations

from .awkward_forwards import FORWARDS
from .awkward_layers import LAYERS
from .awkward_signatures import SIGNATURES
from .networks import Network

AWKWARD: dict[str, Network] = {**LAYERS, **FORWARDS, **SIGNATURES}
