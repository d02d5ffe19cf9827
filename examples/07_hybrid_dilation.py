"""Take the gridding out of a real DeepLabv3: what the dilated stages of its ResNet-50 read, before and after."""

import torch
from pytorchcv.models.deeplabv3 import deeplabv3_resnetd50b_voc

import padrewrite as pr
from padrewrite.drawing import gridding_figure

model = deeplabv3_resnetd50b_voc(pretrained_backbone=False, in_size=(64, 96)).eval()
x = torch.randn(1, 3, 64, 96)
new = pr.transform(model, ["hybrid-dilation"], example_inputs=x)
print(*(note for note in pr.report(new).plans[0].notes if "rates" in note), sep="\n", end="\n\n")

chains = {}
for title, network in (("as built", model), ("hybrid-dilation", new)):
    (chain,) = pr.analyze(network, example_inputs=x).chains  # its atrous pyramid is parallel, and no chain
    chains[f"{title}: {len(chain.sites)} layers, M_2 = {chain.m2}"] = chain
figure = gridding_figure(chains)
figure.savefig("hybrid_dilation.png")
for axes in figure.axes[:2]:
    print(axes.get_title(), end="\n\n")
