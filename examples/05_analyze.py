"""See what is spatially true of a network, and what is wrong with it. Nothing is changed."""

import torch
from torch import Tensor, nn

import padrewrite as pr


class Segmenter(nn.Module):
    """Stride 4 in two steps, three dilated layers, a head with an even kernel, and back to the input's size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 32, 4, stride=2, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU()
        )
        self.body = nn.Sequential(*(nn.Conv2d(64, 64, 3, padding=2, dilation=2) for _ in range(3)))
        self.pad, self.head = nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(64, 5, 2)
        self.up = nn.Upsample(scale_factor=4, mode="bilinear")

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.head(self.pad(self.body(self.stem(x)))))


analysis = pr.analyze(Segmenter(), example_inputs=torch.randn(1, 3, 128, 128))
print(analysis)

last = analysis.sites["body.2"]  # what the table says and more, for programs; analysis.to_json() has all of it
print(f"\nbody.2: position i is centred on pixel {last.phase[0].scale}i + {last.phase[0].offset} along each axis")
print(f"body.2: {last.saw_padding:.0%} of its outputs depend on padding, its edge keeps {last.border.edge:.0%} signal")
print(f"rates that grid: {[chain.rates for chain in analysis.chains if not chain.with_lead_in.hole_free]}")
