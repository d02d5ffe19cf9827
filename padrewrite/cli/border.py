"""What padding does to a network's response near the border, measured on a photograph.

The network measured here has patches of its own feature maps for kernels, and batch norms with the statistics
of the photograph. Kernels of white noise would show something else: on a smooth image their windows cancel in the
interior and not at the border, and the mean that partial padding keeps says little about them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def draw_kernels(network: nn.Module, batch: Tensor, seed: int) -> None:
    """Makes every kernel a patch of what its convolution reads for ``batch``, in one forward, in place.

    Patches are taken at random places, less their mean, and scaled to length one; a convolution that reads
    fewer than 64 positions keeps its random kernels. Source: Krähenbühl et al. 2016, Data-dependent
    Initializations of Convolutional Neural Networks.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(conv: nn.Module, args: tuple[Any, ...]) -> None:
        assert isinstance(conv, nn.Conv2d)
        x: Tensor = args[0]
        if x.shape[2] * x.shape[3] >= 64 and conv.groups == 1:
            conv.weight.copy_(_patches(x, conv, generator))

    hooks = [m.register_forward_pre_hook(draw) for m in network.modules() if isinstance(m, nn.Conv2d)]
    try:
        estimate_statistics(network, batch)
    finally:
        for hook in hooks:
            hook.remove()


def _patches(x: Tensor, conv: nn.Conv2d, generator: torch.Generator) -> Tensor:
    """As many patches of ``x`` (N, C, H, W) as the convolution has outputs: its weight, dilation included."""
    count, places = conv.out_channels, []
    for axis, size in enumerate(x.shape[2:]):
        kernel = conv.kernel_size[axis]
        step = min(conv.dilation[axis], (size - 1) // max(1, kernel - 1))
        first = torch.randint(size - step * (kernel - 1), (count, 1), generator=generator)
        places.append(first + step * torch.arange(kernel))
    image = torch.randint(x.shape[0], (count, 1, 1), generator=generator)
    patches = x.permute(0, 2, 3, 1)[image, places[0][:, :, None], places[1][:, None, :]]
    patches = patches - patches.mean((0, 1, 2))
    length = patches.flatten(1).norm(dim=1).clamp_min(1e-6)
    return (patches / length[:, None, None, None]).permute(0, 3, 1, 2)


@torch.no_grad()
def estimate_statistics(network: nn.Module, batch: Tensor) -> None:
    """Gives every batch norm the statistics of ``batch`` by one forward in train mode; leaves eval mode."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean, which over one forward is the batch's own
    network.train()
    network(batch)
    network.eval()
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum


@torch.no_grad()
def response_maps(network: nn.Module, x: Tensor, depths: Mapping[str, str]) -> dict[str, Tensor]:
    """Mean |activation| over channels, (H, W), after each of the named modules."""
    maps: dict[str, Tensor] = {}
    with _watching(network, depths, maps):
        network(x)
    return maps


@contextmanager
def _watching(network: nn.Module, depths: Mapping[str, str], maps: dict[str, Tensor]) -> Iterator[None]:
    def watch(depth: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            features: Tensor = output[0] if isinstance(output, tuple) else output
            maps[depth] = features[0].abs().mean(0)

        return hook

    hooks = [network.get_submodule(name).register_forward_hook(watch(depth)) for depth, name in depths.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def border_distance(height: int, width: int) -> Tensor:
    """For each position of a map, how many positions it is away from the nearest border; (H, W), integers."""
    rows, columns = torch.arange(height), torch.arange(width)
    nearest = (torch.minimum(rows, rows.flip(0)), torch.minimum(columns, columns.flip(0)))
    return torch.minimum(nearest[0][:, None], nearest[1][None, :])


def normalised(response: Tensor) -> Tensor:
    """``response`` (H, W) over its mean in the interior: the positions at least half-way to the centre."""
    distance = border_distance(*response.shape)
    interior = response[2 * distance >= distance.max()]
    return response / interior.mean()


def profile(response: Tensor) -> list[float]:
    """Mean of the normalised response at each distance from the border, nearest first."""
    distance = border_distance(*response.shape).flatten()
    total = torch.zeros(int(distance.max()) + 1, dtype=torch.float64)
    total.index_add_(0, distance, normalised(response).flatten().double())
    return (total / torch.bincount(distance)).tolist()
