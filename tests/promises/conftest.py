from __future__ import annotations

import pytest
from writing.nets import picture

from .nets import Everything


@pytest.fixture
def net() -> Everything:
    """In train mode, with gradients."""
    net = Everything()
    net(picture())["map"].sum().backward()
    return net
