"""Draw how even kernels move a network's features layer by layer, and what symmetric padding leaves of that."""

import torch
from torch import nn

import padrewrite as pr
from padrewrite.drawing import shift_figure

layers: list[nn.Module] = []
for stage in range(3):
    layers += [nn.AvgPool2d(2)] if stage else []
    layers += [nn.Conv2d(8, 8, 2, padding="same"), nn.ReLU(), nn.Conv2d(8, 8, 2, padding="same"), nn.ReLU()]
model, x = nn.Sequential(*layers), torch.randn(1, 8, 64, 64)
new = pr.transform(model, ["symmetric-even"], example_inputs=x)
before, after = (pr.analyze(m, example_inputs=x) for m in (model, new))
shift_figure({'2x2 kernels, padding="same"': before, "symmetric-even": after}).savefig("shift.png")
for site in before.sites:
    was, now = (a.sites[site].phase[1].offset for a in (before, after))
    print(f"{site}: position 0 sits on pixel {was}, after the rewrite on {now}")
