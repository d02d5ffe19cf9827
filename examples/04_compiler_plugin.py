"""The same rewrite as a torch.compile backend: the model object stays as it is, only the compiled code differs."""

import torch
from torch import nn

import padrewrite as pr

model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1)).eval()
x = torch.randn(1, 3, 24, 32)

fast = torch.compile(model, backend="padrewrite", options={"passes": ["partial-padding"]})
new = pr.transform(model, ["partial-padding"], example_inputs=x)
with torch.no_grad():
    print("compiled against rewritten:", (fast(x) - new(x)).abs().max().item())

compiled = pr.compile(model, passes=["partial-padding"])
with torch.no_grad():
    compiled(x)
print(pr.report(compiled))
