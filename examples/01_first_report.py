"""Rewrite a network you did not write, and read what happened to each of its convolutions."""

import torch
from pytorchcv.models.resnet import resnet10

import padrewrite as pr

torch.manual_seed(0)
model, x = resnet10().eval(), torch.randn(1, 3, 224, 224)
new = pr.transform(model, passes=["partial-padding"], example_inputs=x)
print(pr.report(new))
