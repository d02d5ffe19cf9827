"""Operations as numbers, and their functional forms."""

from padrewrite.ops.conv import Conv, TransposedConv
from padrewrite.ops.partial import partial_conv
from padrewrite.ops.symmetric import symmetric_conv
from padrewrite.ops.window import Window

__all__ = ["Conv", "TransposedConv", "Window", "partial_conv", "symmetric_conv"]
