"""The feature extractors of the zoo: classifiers without their global pool and their layer of fixed size.

Everything here runs at sizes other than its classifier's, most at any size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import nn

from .networks import noise, seeded, settle

Sizes = tuple[tuple[int, int], ...]

ANY: Sizes = ((64, 96), (65, 97), (83, 70))
MULTIPLES: Sizes = ((64, 96), (96, 64), (32, 128))
"""Of 32: where a pool of 2 stands beside a convolution of 3, the original runs at no other size."""
INCEPTION: Sizes = ((96, 128), (97, 107), (110, 99))
"""Its unpadded convolutions need more."""
ROUNDED: Sizes = ((64, 96), (65, 97), (67, 99))
"""Some at which pools that round up are as long as the strided convolutions beside them, which they must be."""


@dataclass(frozen=True)
class Extractor:
    """What comes before the global pool of one classifier."""

    name: str
    family: str
    build: Callable[[], nn.Module]
    """In eval mode, the same weights every time."""
    sizes: Sizes


def _features(family: str, name: str, height: int, width: int) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        made = getattr(import_module(f"pytorchcv.models.{family}"), name)(pretrained=False)
        features: Any = made.features
        for pool in ("final_pool", "final_block.pool"):
            owner, _, last = pool.rpartition(".")
            try:
                setattr(features.get_submodule(owner), last, _kept(features.get_submodule(pool)))
            except AttributeError:
                continue
        return settle(features.eval(), noise(1, 3, height, width)())

    return seeded(make)


def _kept(_pool: nn.Module) -> nn.Module:
    """What stands in the place of a global pool."""
    return nn.Identity()


def _listed(words: str, sizes: Sizes) -> list[Extractor]:
    pairs = [word.split(":") for word in words.split()]
    return [Extractor(name, family, _features(family, name, *sizes[0]), sizes) for family, name in pairs]


_AT_ANY = """
alexnet:alexnet bagnet:bagnet17 condensenet:condensenet74_c4_g4 darknet53:darknet53
densenet:densenet121 diracnetv2:diracnet18v2 dpn:dpn68 drn:drnc26 drn:drnd22 efficientnet:efficientnet_b0
efficientnet:efficientnet_b0b hardnet:hardnet39ds mobilenet:mobilenet_wd4 mobilenetv2:mobilenetv2_wd4
mobilenetv3:mobilenetv3_small_w7d20 preresnet:preresnet10 preresnet:preresnetbc14b regnet:regnetx002 resnet:resnet10
resnet:resnet18 resnet:resnet50 resnet:resnetbc14b resneta:resneta10 resnetd:resnetd50b resnext:resnext14_16x4d
resnext:resnext26_32x2d senet:senet16 seresnet:seresnet10 sharesnet:sharesnet18 shufflenet:shufflenet_g1_w1
shufflenetv2:shufflenetv2_wd2 squeezenet:squeezenet_v1_1 squeezenet:squeezeresnet_v1_1 vgg:bn_vgg11 vgg:bn_vgg16
vgg:vgg11 vovnet:vovnet27s xception:xception zfnet:zfnet
"""

_AT_MULTIPLES = "dla:dla34 dla:dla46c fishnet:fishnet99 peleenet:peleenet"

EXTRACTORS: tuple[Extractor, ...] = tuple(
    sorted(
        [
            *_listed(_AT_ANY, ANY),
            *_listed(_AT_MULTIPLES, MULTIPLES),
            *_listed("inceptionv3:inceptionv3", INCEPTION),
            *_listed("bninception:bninception", ROUNDED),
        ],
        key=lambda one: (one.family, one.name),
    )
)


def image(height: int, width: int) -> torch.Tensor:
    """An input in float64, the same for the same size."""
    return noise(1, 3, height, width)()[0].double()
