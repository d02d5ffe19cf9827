"""The networks of the sweep: the cross-section of the tests, and about one more for every family there is.

Each takes the smallest or a usual input that keeps it quick. ``Entry.spec`` says how a network is built, so that
a result can be told to be of another network of the same name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from .catalogue_medical import MEDICAL
from .networks import NETWORKS, Inputs, Network, noise, real


@dataclass(frozen=True)
class Entry:
    """One network of the sweep and a text that changes whenever its making changes."""

    network: Network
    spec: str

    @property
    def name(self) -> str:
        return self.network.name


def entry(name: str, source: str, *shape: int, inputs: Callable[[], Inputs] | None = None, **kwargs: Any) -> Entry:
    """A network of a package on one input of ``shape``, or on ``inputs()``."""
    spec = f"{source} {inputs.__name__ if inputs else shape} {sorted(kwargs.items())}"
    return Entry(real(name, source, inputs or noise(*shape), **kwargs), spec)


def pytorchcv(listed: str, size: int, width: int | None = None, channels: int = 3, **kwargs: Any) -> list[Entry]:
    """Entries for ``family:constructor`` words, all on (1, channels, size, width)."""
    shape, found = (1, channels, size, width or size), []
    for word in listed.split():
        name = word.split(":")[1]
        found.append(entry(name, f"pytorchcv.models.{word}", *shape, pretrained=False, **kwargs))
    return found


# Their last pooling or linear layer is made for this size.
_AT_224 = """
airnet:airnet50_1x64d_r16 airnext:airnext50_32x4d_r2 alexnet:alexnet alexnet:alexnetb bagnet:bagnet17
bamresnet:bam_resnet18 bninception:bninception cbamresnet:cbam_resnet18 channelnet:channelnet
condensenet:condensenet74_c8_g8 darknet53:darknet53 darknet:darknet_ref darknet:darknet_tiny darts:darts
diapreresnet:diapreresnet10 diaresnet:diaresnet10 diracnetv2:diracnet18v2 dla:dla46c dla:dla46xc dpn:dpn68
drn:drnd22 espnetv2:espnetv2_wd2 fastseresnet:fastseresnet101b fbnet:fbnet_cb fdmobilenet:fdmobilenet_wd4
fishnet:fishnet99 ghostnet:ghostnet hardnet:hardnet39ds hardnet:hardnet68 hrnet:hrnetv2_w18
ibnbresnet:ibnb_resnet50 ibndensenet:ibn_densenet121 ibnresnet:ibn_resnet50 ibnresnext:ibn_resnext50_32x4d
igcv3:igcv3_wd4 irevnet:irevnet301 menet:menet108_8x1_g3 mixnet:mixnet_m mnasnet:mnasnet_a1
mnasnet:mnasnet_small mobilenet:mobilenet_wd4 mobilenetb:mobilenetb_wd4 mobilenetv2:mobilenetv2b_wd4
mobilenetv3:mobilenetv3_large_w7d20 mobilenetv3:mobilenetv3_small_w7d20 msdnet:msdnet22 nasnet:nasnet_4a1056
octresnet:octresnet50b_ad2 peleenet:peleenet preresnet:preresnet10 proxylessnas:proxylessnas_cpu
pyramidnet:pyramidnet101_a360 resattnet:resattnet56 resnet:resnet10 resnet:resnet18 resnet:resnet50
resnet:resnetbc14b resnext:resnext26_32x2d revnet:revnet38 selecsls:selecsls42 senet:senet16
sepreresnet:sepreresnet10 seresnet:seresnet10 seresnext:seresnext50_32x4d sharesnet:sharesnet18
shufflenet:shufflenet_g1_w1 shufflenet:shufflenet_g3_wd4 shufflenetv2:shufflenetv2_wd2
shufflenetv2b:shufflenetv2b_wd2 sknet:sknet50 sparsenet:sparsenet121 spnasnet:spnasnet
squeezenet:squeezenet_v1_0 squeezenet:squeezenet_v1_1 squeezenet:squeezeresnet_v1_1 squeezenext:sqnxt23_w1
vgg:bn_vgg11 vgg:vgg11 vovnet:vovnet27s wrn:wrn50_2 xdensenet:xdensenet121_2 zfnet:zfnet
"""

_AT_ANY_SIZE = """
dicenet:dicenet_wd5 efficientnet:efficientnet_b0 efficientnet:efficientnet_b1b
efficientnetedge:efficientnet_edge_small_b regnet:regnetx002 regnet:regnety002 resnesta:resnestabc14
resneta:resneta10 resnetd:resnetd50b scnet:scnet50 tresnet:tresnet_m
"""

_AT_32 = """
densenet_cifar:densenet40_k12_bc_cifar10 diaresnet_cifar:diaresnet20_cifar10 fractalnet_cifar:fractalnet_cifar10
msdnet_cifar10:msdnet22_cifar10 nin_cifar:nin_cifar10 preresnet_cifar:preresnet20_cifar10
pyramidnet_cifar:pyramidnet110_a48_cifar10 resdropresnet_cifar:resdropresnet20_cifar10
resnet_cifar:resnet20_cifar10 resnext_cifar:resnext20_16x4d_cifar10 rir_cifar:rir_cifar10
ror_cifar:ror3_56_cifar10 sepreresnet_cifar:sepreresnet20_cifar10 seresnet_cifar:seresnet20_cifar10
shakedropresnet_cifar:shakedropresnet20_cifar10 shakeshakeresnet_cifar:shakeshakeresnet20_2x16d_cifar10
wrn1bit_cifar:wrn20_10_1bit_cifar10 wrn_cifar:wrn16_10_cifar10 xdensenet_cifar:xdensenet40_2_k24_bc_cifar10
"""

_AT_299 = """
inceptionresnetv1:inceptionresnetv1 inceptionresnetv2:inceptionresnetv2 inceptionv3:inceptionv3
inceptionv4:inceptionv4
"""

_AT_331 = "pnasnet:pnasnet5large polynet:polynet"

_POSE_FACE_AND_DETECTION = """
alphapose_coco:alphapose_fastseresnet101b_coco centernet:centernet_resnet18_voc ibppose_coco:ibppose_coco
lffd:lffd20x5s320v2_widerface lwopenpose_cmupan:lwopenpose2d_mobilenet_cmupan_coco
lwopenpose_cmupan:lwopenpose3d_mobilenet_cmupan_coco prnet:prnet simplepose_coco:simplepose_resnet18_coco
simpleposemobile_coco:simplepose_mobile_mobilenetv3_small_w1_coco
simpleposemobile_coco:simplepose_mobile_resnet18_coco
"""

_SEGMENTATION = """
contextnet:ctxnet_cityscapes edanet:edanet_cityscapes
enet:enet_cityscapes esnet:esnet_cityscapes sinet:sinet_cityscapes
sqnet:sqnet_cityscapes
"""


def dark_frames() -> Inputs:
    """One gray image of 0..1, as keypoint detectors take it."""
    return (torch.rand((1, 1, 64, 80), generator=torch.Generator().manual_seed(1)),)


def mel_frames() -> Inputs:
    """Mel features (N, 64, T) and the length of each recording."""
    return torch.randn((1, 64, 64), generator=torch.Generator().manual_seed(1)), torch.tensor([64])


def speech_windows() -> Inputs:
    """Windows of speech features (N, 1, 16, 29), and the speaker of each."""
    return torch.randn((2, 1, 16, 29), generator=torch.Generator().manual_seed(1)), torch.tensor([3, 3])


def speech_sequences() -> Inputs:
    """Sequences of such windows (N, T, 16, 29), and the speaker of each."""
    return torch.randn((2, 8, 16, 29), generator=torch.Generator().manual_seed(1)), torch.tensor([3, 3])


def big_frames() -> Inputs:
    """Two images of 0..255 large enough for a cost volume of four levels."""
    first = torch.rand((1, 3, 128, 128), generator=torch.Generator().manual_seed(1)) * 255
    return first, first.roll(2, dims=3)


_OTHER = [
    *pytorchcv("bisenet:bisenet_resnet18_celebamaskhq", 128, in_size=(128, 128), pretrained_backbone=False),
    *pytorchcv("fastscnn:fastscnn_cityscapes", 128, 192, in_size=(128, 192)),
    entry("voca8flame", "pytorchcv.models.voca:voca8flame", inputs=speech_windows),
    entry("nvpattexp116bazel76", "pytorchcv.models.nvpattexp:nvpattexp116bazel76", inputs=speech_sequences),
    entry("superpointnet", "pytorchcv.models.superpointnet:superpointnet", inputs=dark_frames),
    entry("jasper5x3", "pytorchcv.models.jasper:jasper5x3", inputs=mel_frames, from_audio=False),
    entry("jasperdr10x5_en", "pytorchcv.models.jasperdr:jasperdr10x5_en", inputs=mel_frames, from_audio=False),
    entry("quartznet15x5_en", "pytorchcv.models.quartznet:quartznet15x5_en", inputs=mel_frames, from_audio=False),
    entry("raft_things", "pytorchcv.models.raft:raft_things", inputs=big_frames, iters=2),
    entry("ntsnet_cub", "pytorchcv.models.ntsnet_cub:ntsnet_cub", 1, 3, 448, 448, pretrained_backbone=False),
    entry("pfpcnet", "pytorchcv.models.pfpcnet:pfpcnet", 1, 1, 320, 240),
]

_SAME = [
    entry(
        f"{name.replace('-', '_')}_{size}",
        "efficientnet_pytorch:EfficientNet.from_name",
        *(1, 3, size, size),
        model_name=name,
        image_size=size if static else None,
    )
    for name, size, static in (("efficientnet-b1", 96, True), ("efficientnet-b2", 75, False))
]


def _cross_section() -> list[Entry]:
    """The networks of the tests; what they are is in their own file, which belongs to every result's key."""
    return [Entry(network, "cross-section") for network in NETWORKS.values()]


LATE = """
efficientnet_b1_96 efficientnet_b2_75 efficientnet_dynamic_same monai_ahnet_2d monai_ahnet_3d monai_attention_unet
monai_densenet121_3d monai_efficientnet_2d monai_efficientnet_3d monai_flexible_unet monai_hovernet monai_mednext_s
monai_quicknat monai_resnet10_3d monai_segresnet_ds monai_segresnet_ds2 monai_segresnet_vae monai_senet50_2d
airnet50_1x64d_r16 airnext50_32x4d_r2 alexnet alexnetb alphapose_fastseresnet101b_coco bagnet17
bisenet_resnet18_celebamaskhq bninception centernet_resnet18_voc channelnet condensenet74_c8_g8 darknet53 darts
dpn68 efficientnet_b0 efficientnet_b1b efficientnet_edge_small_b fastseresnet101b fbnet_cb fishnet99 ghostnet
hardnet39ds hardnet68 hrnetv2_w18 ibn_densenet121 ibn_resnet50 ibn_resnext50_32x4d ibnb_resnet50 ibppose_coco
inceptionresnetv1 inceptionresnetv2 inceptionv3 inceptionv4 irevnet301 jasper5x3 jasperdr10x5_en
lffd20x5s320v2_widerface lwopenpose2d_mobilenet_cmupan_coco lwopenpose3d_mobilenet_cmupan_coco menet108_8x1_g3
mixnet_m mnasnet_a1 mobilenetv3_large_w7d20 msdnet22 msdnet22_cifar10 nasnet_4a1056 ntsnet_cub nvpattexp116bazel76
octresnet50b_ad2 peleenet pfpcnet pnasnet5large polynet prnet proxylessnas_cpu pyramidnet101_a360
pyramidnet110_a48_cifar10 quartznet15x5_en raft_things regnetx002 regnety002 resattnet56 resnestabc14 resnet50
resnetd50b resnext26_32x2d revnet38 scnet50 selecsls42 senet16 seresnext50_32x4d shakeshakeresnet20_2x16d_cifar10
shufflenet_g1_w1 sknet50 sparsenet121 spnasnet sqnxt23_w1 tresnet_m vgg11 vovnet27s wrn16_10_cifar10
wrn20_10_1bit_cifar10 wrn50_2 xdensenet121_2 xdensenet40_2_k24_bc_cifar10 zfnet icnet_resnetd50b lednet mixnet_s
pspnet_resnetd50b raft_small segnet sinet_cityscapes sqnet_cityscapes superpointnet xception
"""
"""Networks that take minutes each, or that stand for a family of which another is here: a sweep that is not given the
time for all comes to them last."""

ENTRIES: tuple[Entry, ...] = tuple(
    sorted(
        [
            *_cross_section(),
            *pytorchcv(_AT_224, 224),
            *pytorchcv(_AT_ANY_SIZE, 128),
            *pytorchcv(_AT_32, 32),
            *pytorchcv(_AT_299, 299),
            *pytorchcv(_AT_331, 331),
            *pytorchcv(_POSE_FACE_AND_DETECTION, 128),
            *pytorchcv(_SEGMENTATION, 128),
            *_OTHER,
            *_SAME,
            *(entry(f"monai_{name}", f"monai.networks.nets.{made}", *shape, **kw) for name, made, shape, kw in MEDICAL),
        ],
        key=lambda e: (e.name in LATE.split(), e.network.package or "", e.name),
    )
)
