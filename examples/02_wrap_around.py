"""A panorama wraps around in longitude but not in latitude: circular padding on the last axis, partial on the other."""

import torch
from torch import nn

import padrewrite as pr

model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 5, padding=2))
panorama = torch.randn(1, 3, 32, 64)

passes = ["padding-mode{mode=circular,axes=[-1]}", "partial-padding"]
new = pr.transform(model, passes, example_inputs=panorama, verify="full")
print(pr.report(new))

# Rolling the panorama now only rolls the answer; before, the seam was a border.
rolled = panorama.roll(17, dims=-1)
print("seam error before", (model(rolled) - model(panorama).roll(17, dims=-1)).abs().max().item())
print("seam error after ", (new(rolled) - new(panorama).roll(17, dims=-1)).abs().max().item())
