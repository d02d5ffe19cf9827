"""``padrewrite demo``: a third-party network, a photograph, and what partial padding does to the border."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import padrewrite as pr
from padrewrite.cli.border import draw_kernels, estimate_statistics, normalised, profile, response_maps
from padrewrite.cli.printing import show
from padrewrite.drawing.border_response import Curves, Maps, draw_border_response
from padrewrite.errors import InputsError, PadrewriteError
from padrewrite.reporting.evidence import verification_parts
from padrewrite.reporting.layout import grid
from padrewrite.reporting.text import report_parts

STRIDE = 8
"""Output stride of the network: where the crop lies must be a multiple of it, or the maps do not line up."""

MARGIN = 24
"""Pixels of photograph that must be left around the crop."""

DEPTHS = {
    "stem": "backbone.0",
    "stage 1": "backbone.1",
    "stage 2": "backbone.2",
    "stage 3": "backbone.3",
    "stage 4": "backbone.4",
    "class scores": "final_block.conv2",
}
SHOWN = "stage 4"
"""The depth whose maps are drawn."""

ZERO, PARTIAL, REFERENCE = "zero padding", "partial padding", "photograph goes on"

_SETTING = """\
network   DeepLabv3 on ResNet(D)-50b, from pytorchcv
input     {height}x{width} pixels of a photograph
kernels   patches of what each convolution reads (seed {seed}). With white noise for kernels the border
          overshoots under partial padding: it keeps a window's mean, not its variance.
norms     statistics of the photograph, by one forward in train mode, before anything is rewritten
"""
_TITLE = "DeepLabv3 (ResNet-50) near the border: zero padding, and the same network rewritten to partial padding"
_AGAIN = """
The rewritten network's batch norms were then estimated again in the same way, as the note advises.
"""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_FIGURES = "pip install 'padrewrite[figures]'"


@dataclass(frozen=True)
class Scene:
    """The photograph (1, 3, H, W), normalised, and the crop of it that the networks see."""

    photograph: Tensor
    crop: Tensor
    top: int
    left: int


def demonstrate(size: tuple[int, int], seed: int, output: Path) -> None:
    """Rewrites the network, prints report and evidence, and draws the border response to ``output`` (PNG).

    Raises:
        PadrewriteError: a package of the demo is not installed, or the figure cannot be written.
        InputsError: ``size`` (H, W) does not fit into the photograph.
    """
    started = time.perf_counter()
    check_extras()
    scene = take_crop(load_photograph(), size)
    network = build_network(seed)
    batch = torch.cat([scene.crop, scene.crop.flip(3)])
    print(_SETTING.format(height=size[0], width=size[1], seed=seed))
    draw_kernels(network, batch, seed)
    example = scene.crop[:, :, :97, :129].contiguous()
    new = pr.transform(network, ["partial-padding"], example_inputs=example)
    report = pr.report(new)
    show(lambda width: report_parts(report, width))
    print()
    if report.verification is not None:
        found = report.verification
        show(lambda width: verification_parts(found, width))
    estimate_statistics(new, batch)
    print(_AGAIN)
    curves, maps = measure(network, new, scene)
    show(lambda width: [grid(_rows(curves), width, least=(0,) * 5, right=range(1, 5))])
    _draw(curves, maps, scene, output)
    print(f"\nFigure: {output} ({time.perf_counter() - started:.0f} s)")


def check_extras() -> None:
    """Raises a PadrewriteError with the line to run if a package of the demo is missing."""
    with needs("pytorchcv", "pip install --no-deps pytorchcv"):
        import pytorchcv.models.deeplabv3  # pyright: ignore[reportUnusedImport] # noqa: F401
    with needs("scikit-learn", _FIGURES):
        import sklearn.datasets  # pyright: ignore[reportUnusedImport] # noqa: F401
    with needs("pillow", _FIGURES):
        import PIL.Image  # pyright: ignore[reportUnusedImport] # noqa: F401
    with needs("matplotlib", _FIGURES):
        import matplotlib.figure  # pyright: ignore[reportUnusedImport] # noqa: F401


@contextmanager
def needs(package: str, install: str) -> Iterator[None]:
    """Turns a failed import into a PadrewriteError that says how to install ``package``."""
    try:
        yield
    except ImportError as error:
        raise PadrewriteError(
            f"padrewrite demo needs {package}, which cannot be imported ({error}). Run: {install}"
        ) from error


def load_photograph() -> Tensor:
    """scikit-learn's photograph of a Chinese temple, (1, 3, 427, 640), normalised as ImageNet."""
    import numpy
    from sklearn.datasets import load_sample_image

    pixels = torch.from_numpy(numpy.array(load_sample_image("china.jpg"))).permute(2, 0, 1)[None] / 255
    return (pixels - torch.tensor(_MEAN).view(1, 3, 1, 1)) / torch.tensor(_STD).view(1, 3, 1, 1)


def take_crop(photograph: Tensor, size: tuple[int, int]) -> Scene:
    """The middle of the photograph, at a place that keeps all feature maps in line."""
    whole: tuple[int, int] = tuple(photograph.shape[2:])  # pyright: ignore[reportAssignmentType]
    largest = tuple(n - 2 * MARGIN for n in whole)
    if not all(65 <= n <= most for n, most in zip(size, largest)):
        raise InputsError(
            f"the demo's size is {size[0]}x{size[1]}; it must be from 65x65 to {largest[0]}x{largest[1]}, "
            f"because the photograph has {whole[0]}x{whole[1]} pixels and some are needed around the crop."
        )
    top, left = ((n - s) // 2 // STRIDE * STRIDE for n, s in zip(whole, size))
    crop = photograph[:, :, top : top + size[0], left : left + size[1]].contiguous()
    return Scene(photograph, crop, top, left)


def build_network(seed: int) -> nn.Module:
    from pytorchcv.models.deeplabv3 import deeplabv3_resnetd50b_voc

    torch.manual_seed(seed)
    make: Any = deeplabv3_resnetd50b_voc
    return make(pretrained_backbone=False, fixed_size=False).eval()


def measure(network: nn.Module, new: nn.Module, scene: Scene) -> tuple[list[Curves], dict[str, Tensor]]:
    """Profiles at every depth and the maps of one, for both networks and for the photograph going on."""
    found = {
        ZERO: response_maps(network, scene.crop, DEPTHS),
        PARTIAL: response_maps(new, scene.crop, DEPTHS),
    }
    whole = response_maps(network, scene.photograph, DEPTHS)
    found[REFERENCE] = {depth: _same_place(whole[depth], found[ZERO][depth], scene) for depth in DEPTHS}
    curves: list[Curves] = []
    for depth in DEPTHS:
        stride = _stride(scene, found[ZERO][depth])
        curves.append(Curves(depth, stride, {name: profile(maps[depth]) for name, maps in found.items()}))
    return curves, {name: normalised(maps[SHOWN]) for name, maps in found.items()}


def _stride(scene: Scene, response: Tensor) -> int:
    """Input pixels per position: n pixels give ceil(n / stride) positions."""
    return -(-scene.crop.shape[2] // response.shape[0])


def _same_place(whole: Tensor, like: Tensor, scene: Scene) -> Tensor:
    """The part of a map of the whole photograph that lies where the crop's map lies."""
    stride = _stride(scene, like)
    top, left = scene.top // stride, scene.left // stride
    return whole[top : top + like.shape[0], left : left + like.shape[1]]


def _rows(curves: list[Curves]) -> list[tuple[str, ...]]:
    names = (ZERO, PARTIAL, REFERENCE)
    rows: list[tuple[str, ...]] = [("response at the border, interior = 1", "stride", *names)]
    for one in curves:
        rows.append((one.title, str(one.stride), *(f"{one.curves[name][0]:.2f}" for name in names)))
    return rows


def _draw(curves: list[Curves], maps: Mapping[str, Tensor], scene: Scene, output: Path) -> None:
    colours = scene.photograph[0] * torch.tensor(_STD).view(3, 1, 1) + torch.tensor(_MEAN).view(3, 1, 1)
    height, width = scene.crop.shape[2:]
    pictures = Maps(
        colours.clamp(0, 1).permute(1, 2, 0).numpy(),
        (scene.top, scene.left, height, width),
        SHOWN,
        {name: one.numpy() for name, one in maps.items()},
    )
    try:
        draw_border_response(_TITLE, curves, pictures, output)
    except (OSError, ValueError) as error:
        raise PadrewriteError(f"the figure {output} was not written: {error}") from error
