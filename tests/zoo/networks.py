"""Real networks with random weights, 1-D to 3-D, each at the smallest input that it accepts.

Every entry is deterministic by seed, in eval mode and downloads nothing. Freshly built networks hide
mistakes: their biases are zero, so a rewrite that scales the bias too would go unnoticed, and in some the
signal dies out before it reaches the output. ``settle`` gives biases ordinary values and batch norms fitting
statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from importlib import import_module
from operator import attrgetter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

Inputs = tuple[Any, ...] | dict[str, Any]


@dataclass(frozen=True)
class Network:
    """One network of the collection."""

    name: str
    build: Callable[[], nn.Module]
    """Makes the network: eval mode unless its point is train mode, the same weights every time."""
    inputs: Callable[[], Inputs]
    """Positional arguments, or a dict of keyword arguments; the same values every time."""
    fast: bool = True
    """False where recording, planning and checking it take too long for every run of the tests."""
    expect: str | None = None
    """Why the network is refused as a whole, or None where it must be handled."""
    package: str | None = None
    """What must be installed to build it."""

    def make(self) -> nn.Module:
        """``build()``, or the calling test is skipped where the package is missing."""
        if self.package:
            pytest.importorskip(self.package)
        return self.build()


def each(networks: dict[str, Network]) -> list[Any]:
    """The networks as test parameters, the slow ones and those of other packages marked."""
    params: list[Any] = []
    for network in networks.values():
        marks = [] if network.fast else [pytest.mark.slow]
        marks += [pytest.mark.zoo] if network.package else []
        params.append(pytest.param(network, id=network.name, marks=marks))
    return params


def call(model: Callable[..., Any], inputs: Inputs) -> Any:
    """The output of ``model`` on ``inputs``."""
    return model(**inputs) if isinstance(inputs, dict) else model(*inputs)


def noise(*shape: int) -> Callable[[], tuple[Tensor]]:
    """One input of standard normal values."""
    return lambda: (torch.randn(shape, generator=torch.Generator().manual_seed(1)),)


def seeded(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """``make`` with its random weights fixed, and the caller's random state left as it was."""

    def build() -> nn.Module:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            return make()

    return build


def tabulate(
    table: dict[str, Network], inputs: Callable[[], Inputs], train: bool = False, expect: str | None = None
) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Class decorator: enter the class, built without arguments, into ``table`` under its name."""

    def enter(model: type[nn.Module]) -> type[nn.Module]:
        build = seeded(lambda: model().train(train))
        table[model.__name__] = Network(model.__name__, build, inputs, expect=expect)
        return model

    return enter


def conv(cin: int = 4, cout: int = 4, kernel: int = 3, **kwargs: Any) -> nn.Conv2d:
    """The plain layer of the hand-written networks: zero padding of kernel // 2."""
    return nn.Conv2d(cin, cout, kernel, padding=kernel // 2, **kwargs)


def tensors_in(output: Any) -> list[Tensor]:
    """Every tensor of an output, in order: nested sequences, mappings and dataclasses."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        return [t for value in output.values() for t in tensors_in(value)]
    if is_dataclass(output):
        return [t for f in fields(output) for t in tensors_in(getattr(output, f.name))]
    return [t for value in output for t in tensors_in(value)] if isinstance(output, (list, tuple)) else []


@torch.no_grad()
def settle(network: nn.Module, inputs: Inputs) -> nn.Module:
    """Randomise constant parameters, and fit each batch norm roughly to its input, in place."""
    for p in network.parameters():
        if p.is_floating_point() and p.numel() > 0 and bool((p == p.flatten()[0]).all()):
            p.add_(torch.randn_like(p), alpha=0.1)

    def take_statistics(norm: nn.Module, args: tuple[Any, ...]) -> None:
        x, mean, var = args[0], norm.running_mean, norm.running_var
        axes = (0, *range(2, x.dim()))
        if isinstance(mean, Tensor) and isinstance(var, Tensor) and x.numel() >= 12 * x.shape[1]:
            mean.copy_(x.mean(axes))
            spread = x.var(axes)
            var.copy_(spread.clamp_min(float(spread.mean()) / 4) * (0.5 + torch.rand_like(var)))

    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    hooks = [norm.register_forward_pre_hook(take_statistics) for norm in norms]
    call(network, inputs)
    for hook in hooks:
        hook.remove()
    return network


def initialised(build: Callable[[], nn.Module]) -> nn.Module:
    """``build()``, with zeros where it leaves parameters as the memory was (pytorchcv's nvpattexp does)."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)  # which fills new memory with NaN
    try:
        network = build()
    finally:
        torch.use_deterministic_algorithms(before)
    with torch.no_grad():
        for p in network.parameters():
            p.nan_to_num_()
    return network


def real(name: str, source: str, inputs: Callable[[], Inputs], fast: bool = True, **kwargs: Any) -> Network:
    """A network of a package: ``source`` is ``module:constructor``, imported when the network is built."""
    module, constructor = source.split(":")

    def make() -> nn.Module:
        build = attrgetter(constructor)(import_module(module))
        return settle(initialised(lambda: build(**kwargs)).eval(), inputs())

    return Network(name, seeded(make), inputs, fast, package=module.split(".")[0])


def cv(name: str, source: str, *shape: int, fast: bool = True, **kwargs: Any) -> Network:
    """A pytorchcv network on one input of ``shape``."""
    return real(name, f"pytorchcv.models.{source}", noise(*shape), fast, pretrained=False, **kwargs)


def classifier(name: str, family: str, size: int = 224, fast: bool = True) -> Network:
    """A pytorchcv network whose constructor bears its name."""
    return cv(name, f"{family}:{name}", 1, 3, size, size, fast=fast)


def segmenter(name: str, data: str, height: int, width: int, fast: bool = True) -> Network:
    """A pytorchcv segmentation network in its version for ``data``."""
    backbone = {"pretrained_backbone": False} if "resnet" in name or name == "linknet" else {}
    source, size = f"{name.split('_')[0]}:{name}_{data}", (height, width)
    return cv(name, source, 1, 3, *size, fast=fast, in_size=size, **backbone)


def med(name: str, source: str, *shape: int, fast: bool = True, **kwargs: Any) -> Network:
    """A monai network on one input of ``shape``."""
    return real(f"monai_{name}", f"monai.networks.nets.{source}", noise(*shape), fast, **kwargs)


def same_efficientnet(name: str, image_size: int | None, height: int, width: int) -> Network:
    """EfficientNet-B0 with TensorFlow's SAME padding, fixed at build time or computed in each forward."""
    source = "efficientnet_pytorch:EfficientNet.from_name"
    inputs = noise(1, 3, height, width)
    return real(name, source, inputs, model_name="efficientnet-b0", image_size=image_size)


def frames() -> Inputs:
    """Two images of 0..255, the second shifted by two pixels: what optical flow networks take."""
    first = torch.rand((1, 3, 128, 136), generator=torch.Generator().manual_seed(1)) * 255
    return first, first.roll(2, dims=3)


def speech() -> Inputs:
    """Mel features (N, 64, T) and the length of each recording."""
    return torch.randn((2, 64, 96), generator=torch.Generator().manual_seed(1)), torch.tensor([96, 70])


_SEGMENTATION = (
    segmenter("deeplabv3_resnetd50b", "voc", 64, 96),
    segmenter("fcn8sd_resnetd50b", "voc", 64, 96),
    segmenter("pspnet_resnetd50b", "voc", 64, 96),
    segmenter("danet_resnetd50b", "cityscapes", 64, 96, fast=False),
    segmenter("icnet_resnetd50b", "cityscapes", 64, 128, fast=False),
    segmenter("dabnet", "cityscapes", 64, 96),
    segmenter("cgnet", "cityscapes", 64, 96),
    segmenter("erfnet", "cityscapes", 64, 96),
    segmenter("lednet", "cityscapes", 64, 128, fast=False),
    segmenter("espcnet", "cityscapes", 64, 96),
    segmenter("fpenet", "cityscapes", 64, 96, fast=False),
    segmenter("unet", "cityscapes", 32, 48),
    segmenter("segnet", "cityscapes", 32, 64),
    segmenter("linknet", "cityscapes", 64, 96),
)

_CLASSIFICATION = (
    classifier("drnc26", "drn", fast=False),
    classifier("densenet121", "densenet", fast=False),
    classifier("resnext14_16x4d", "resnext"),
    classifier("mobilenetv2_wd4", "mobilenetv2"),
    classifier("xception", "xception", 299, fast=False),
    classifier("hrnet_w18_small_v1", "hrnet", fast=False),
    classifier("mixnet_s", "mixnet", fast=False),
    classifier("dla34", "dla"),
    classifier("octresnet10_ad2", "octresnet"),
    classifier("condensenet74_c4_g4", "condensenet"),
    classifier("isqrtcovresnet18", "isqrtcovresnet"),
    classifier("efficientnet_b0b", "efficientnet"),
    same_efficientnet("efficientnet_static_same", 65, 65, 65),
    same_efficientnet("efficientnet_dynamic_same", None, 65, 82),
)

_FLOW_AND_SPEECH = (
    real("raft_small", "pytorchcv.models.raft:raft_small", frames, iters=2),
    real("quartznet5x5_en_ls", "pytorchcv.models.quartznet:quartznet5x5_en_ls", speech, from_audio=False),
)

_VOLUME: dict[str, Any] = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2}
_STRIDES = ((1, 1, 1), (2, 2, 1), (2, 2, 2))
_DYNAMIC: dict[str, Any] = {
    "kernel_size": ((3, 3, 1), (3, 3, 3), (3, 3, 3)),
    "strides": _STRIDES,
    "upsample_kernel_size": _STRIDES[1:],
    "filters": (4, 8, 16),
    "res_block": True,
}
_LATENT: dict[str, Any] = {
    "spatial_dims": 2,
    "channels": (8, 8, 16),
    "num_res_blocks": 1,
    "attention_levels": (False, False, False),
    "with_encoder_nonlocal_attn": False,
    "with_decoder_nonlocal_attn": False,
    "norm_num_groups": 4,
}

_DISCRIMINATOR: dict[str, Any] = {"spatial_dims": 2, "channels": 8, "in_channels": 3}
_UNET: dict[str, Any] = {"channels": (4, 8, 16), "strides": (2, 2), "num_res_units": 2}

_MEDICAL = (
    med("unet", "unet:UNet", 1, 1, 16, 20, 24, **_UNET, **_VOLUME),
    med("basic_unet", "basic_unet:BasicUNet", 1, 1, 33, 36, 40, features=(4, 4, 8, 8, 16, 4), **_VOLUME),
    med("dynunet", "dynunet:DynUNet", 1, 1, 16, 16, 8, **_DYNAMIC, **_VOLUME),
    med("segresnet", "segresnet:SegResNet", 1, 1, 16, 24, 16, init_filters=8, **_VOLUME),
    med("vnet", "vnet:VNet", 1, 1, 16, 16, 32),
    med("highresnet", "highresnet:HighResNet", 1, 1, 12, 14, 16),
    med("patch_discriminator", "patchgan_discriminator:PatchDiscriminator", 1, 3, 48, 56, **_DISCRIMINATOR),
    med("autoencoderkl", "autoencoderkl:AutoencoderKL", 1, 1, 24, 32, **_LATENT),
    med("hovernet", "hovernet:HoVerNet", 1, 3, 256, 256, fast=False, mode="fast", out_classes=3),
)

NETWORKS: dict[str, Network] = {
    network.name: network for network in (*_SEGMENTATION, *_CLASSIFICATION, *_FLOW_AND_SPEECH, *_MEDICAL)
}
