"""Draw how a dilated 3x3 kernel turns into a 1x1 one as its rate grows ([DLv3] Fig. 4)."""

from padrewrite.drawing import valid_weights_figure
from padrewrite.formulas import valid_weight_fraction

valid_weights_figure(size=65, kernel=3).savefig("valid_weights.png")
for rate in (1, 6, 12, 18, 65):
    print(f"rate {rate}: {valid_weight_fraction(65, rate):.3f} of the weights meet real input")
