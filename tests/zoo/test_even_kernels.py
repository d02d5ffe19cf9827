"""Real networks with even kernels: each convolution gets the right decision for the right reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import padrewrite as pr

from .counting import count_convolutions

NAME = "symmetric-even"


def monai(name: str, **options: Any) -> nn.Module:
    return getattr(pytest.importorskip("monai.networks.nets"), name)(**options)


def patch_discriminator() -> nn.Module:
    return monai("PatchDiscriminator", spatial_dims=2, channels=8, in_channels=1, num_layers_d=2)


def generator() -> nn.Module:
    return monai("Generator", latent_shape=(8,), start_shape=(8, 4, 4), channels=(8, 4), strides=(2, 2))


def autoencoder() -> nn.Module:
    options = {"attention_levels": (False, False), "with_encoder_nonlocal_attn": False}
    options |= {"with_decoder_nonlocal_attn": False, "norm_num_groups": 8, "num_res_blocks": (1, 1)}
    numbers = {"spatial_dims": 2, "in_channels": 1, "out_channels": 1, "channels": (8, 8), "latent_channels": 3}
    return monai("AutoencoderKL", **numbers, **options)


def efficientnet() -> nn.Module:
    package = pytest.importorskip("efficientnet_pytorch")
    return package.EfficientNet.from_name("efficientnet-b0", image_size=64, num_classes=4)


def patches() -> nn.Module:
    """A ConvNeXt's stem and downsampling, around convolutions of single channels."""
    stem, down = nn.Conv2d(3, 8, 4, stride=4), nn.Conv2d(8, 8, 2, stride=2)
    mixing = (nn.Conv2d(8, 8, 7, padding=3, groups=8), nn.Conv2d(8, 8, 2, padding="same", groups=8))
    return nn.Sequential(stem, *mixing, down)


class Positional(nn.Module):
    """A speech encoder's positional convolution: as wide as the signal is long, one sample too many cut off."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = weight_norm(nn.Conv1d(16, 16, 32, padding=16, groups=4), dim=2)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.conv(x)[..., :-1]) + x


class Stem(nn.Module):
    """The stem of HGNet: 2x2 convolutions behind pads on the right and below."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, 2, 1)
        self.narrow, self.widen = nn.Conv2d(8, 4, 2), nn.Conv2d(4, 8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        return self.widen(F.pad(self.narrow(F.pad(x, (0, 1, 0, 1))).relu(), (0, 1, 0, 1))).relu() + x


class Wave(nn.Module):
    """A dilated causal stack of kernel 2, padded before by all that it reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv1d(4, 4, 2, dilation=2**n) for n in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(F.pad(x, (layer.dilation[0], 0)))) + x
        return x


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, int]]] = {
    "patch discriminator": (patch_discriminator, (1, 1, 32, 32), {"aligned": 2, "rewritten": 2}),
    "generator": (generator, (1, 8), {"transposed": 2, "odd-kernel": 4}),
    "autoencoder, padded on one side before its strides": (autoencoder, (1, 1, 16, 16), {"odd-kernel": 17}),
    "patches": (patches, (1, 3, 32, 32), {"patchify": 2, "odd-kernel": 1, "depthwise": 1}),
    "TensorFlow's SAME": (efficientnet, (1, 3, 64, 64), {"odd-kernel": 81}),
    "positional convolution": (Positional, (2, 16, 40), {"rewritten": 1}),
    "stem padded on the right": (Stem, (1, 3, 16, 20), {"odd-kernel": 1, "rewritten": 2}),
    "causal stack": (Wave, (1, 4, 24), {"causal": 3}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_decisions(name: str) -> None:
    """As many as the dispatcher sees convolutions, before and after; what is rewritten keeps its size."""
    build, shape, wanted = NETWORKS[name]
    torch.manual_seed(0)
    model, x = build().eval(), torch.randn(shape)
    new = pr.transform(model, [NAME], example_inputs=x, allow_no_effect=True)
    decisions = pr.report(new).decisions
    assert Counter(d.code for d in decisions) == wanted
    with torch.no_grad():
        counts = [len(count_convolutions(lambda m=m: m(x))) for m in (model, new)]
    assert counts == [len(decisions)] * 2
    if "rewritten" in wanted:
        assert not pr.analyze(new, example_inputs=x).of("half-pixel-shift")
        assert list(new.state_dict()) == list(model.state_dict())
        new.load_state_dict(model.state_dict(), strict=True)
