"""Draw what zero padding leaves of the input, layer by layer, for odd, even and symmetric kernels ([C2sp] Fig. 3)."""

from padrewrite.drawing import erosion_figure

figure = erosion_figure()  # the 55 layers of ResNet-56 on 32x32 pixels
figure.savefig("erosion.png")
for line in figure.axes[0].lines:
    if len(line.get_ydata()) == 55:
        print(f"{line.get_label()}: {line.get_ydata()[-1]:.2g} is left after 55 layers")
