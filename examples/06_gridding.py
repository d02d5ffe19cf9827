"""Draw what chains of dilated convolutions read, before and after their rates change ([HDC] Fig. 2)."""

from padrewrite.drawing import gridding_figure
from padrewrite.formulas import assign_rates

built = [2, 2, 2]
figure = gridding_figure({"as built": built, "hybrid-dilation": assign_rates(built)})
figure.savefig("gridding.png")
for axes in figure.axes[:2]:
    print(axes.get_title(), end="\n\n")
