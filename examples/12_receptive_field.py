"""Draw which input pixels three convolutions of ESPNet depend on: its dilated branches leave holes."""

import torch
from pytorchcv.models.espcnet import espcnet_cityscapes

import padrewrite as pr
from padrewrite.drawing import receptive_field_figure

model, x = espcnet_cityscapes(in_size=(128, 192)).eval(), torch.randn(1, 3, 128, 192)
analysis = pr.analyze(model, example_inputs=x)
unit = "features.stage2.unit"
sites = [f"{unit}.down.branches.branch4", f"{unit}.blocks.block1.reduce_conv", f"{unit}.blocks.block1.branches.branch2"]
receptive_field_figure(analysis, sites).savefig("receptive_field.png")
for site in sites:
    seen = analysis.sites[site].reached
    print(f"{site}: {seen.count} of {seen.extents[0]}x{seen.extents[1]} pixels, {seen.holes} holes")
