"""The menu of random networks, and the two ways to order from it: by a seed, and by hypothesis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from padrewrite.fuzzing import blocks, kinds
from padrewrite.fuzzing.choices import Choices, Drawn, Seeded
from padrewrite.fuzzing.growing import CHANNELS, Grower, draw_conv
from padrewrite.fuzzing.networks import NetSpec

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


def _always(g: Grower, read: int) -> bool:
    return True


def _extended(g: Grower, read: int) -> bool:
    return max(g.sizes(read)) > 1


def _halvable(g: Grower, read: int) -> bool:
    return min(g.sizes(read)) >= 3 and g.channels(read) + 3 <= CHANNELS


@dataclass(frozen=True)
class Kind:
    """One entry of the menu."""

    draw: Callable[[Grower, int], None]
    """Adds steps that read a value."""
    fits: Callable[[Grower, int], bool] = _always
    weight: int = 2
    linear: bool = True
    """It can be drawn so that the network stays affine."""


KINDS: dict[str, Kind] = {
    "conv": Kind(draw_conv, weight=10),
    "pointwise": Kind(kinds.draw_pointwise, weight=3),
    "batch_norm": Kind(kinds.draw_batch_norm),
    "max_pool": Kind(kinds.draw_max_pool, _extended, linear=False),
    "avg_pool": Kind(kinds.draw_avg_pool, _extended),
    "add": Kind(kinds.draw_add),
    "cat": Kind(kinds.draw_cat, kinds.can_cat),
    "pad": Kind(kinds.draw_pad, weight=4),
    "pad_to": Kind(kinds.draw_pad_to),
    "crop": Kind(kinds.draw_crop, _extended),
    "interpolate": Kind(kinds.draw_interpolate, weight=4),
    "transposed_conv": Kind(kinds.draw_transposed_conv, weight=3),
    "symmetric_conv": Kind(kinds.draw_symmetric_conv, weight=3),
    "residual": Kind(blocks.draw_residual),
    "skip": Kind(blocks.draw_skip, blocks.can_skip, weight=3),
    "mul": Kind(kinds.draw_mul, linear=False),
    "adaptive_pool": Kind(kinds.draw_adaptive_pool, _extended),
    "global_pool": Kind(kinds.draw_global_pool, _extended),
    "pixel_shuffle": Kind(kinds.draw_pixel_shuffle, kinds.can_shuffle, weight=6),
    "aspp": Kind(blocks.draw_aspp),
    "squeeze_excite": Kind(blocks.draw_squeeze_excite, linear=False),
    "downsample": Kind(blocks.draw_downsample, _halvable),
}
"""By name, the simple ones first."""


def draw_network(
    choices: Choices,
    *,
    ranks: Sequence[int] = (1, 2, 3),
    padded: bool = True,
    kinds: Sequence[str] | None = None,
    linear_only: bool = False,
    parts: tuple[int, int] = (2, 8),
) -> NetSpec:
    """A random network with at least one convolution.

    Args:
        ranks: numbers of spatial axes to choose from.
        padded: False: no explicit pads, and convolutions pad with zeros only, by numbers.
        kinds: names from `KINDS` to draw from; default all.
        linear_only: an affine network: no max pool, no activation, no product of two values.
        parts: fewest and most entries of the menu.
    """
    names = [name for name in KINDS if kinds is None or name in kinds]
    names = [name for name in names if padded or name not in ("pad", "pad_to")]
    names = [name for name in names if KINDS[name].linear or not linear_only]
    grower = Grower(choices, ranks, padded, "pad" in names, linear_only)
    for _ in range(grower.integer(*parts)):
        _draw_part(grower, names)
    if not any(step.kind in ("conv", "transposed_conv", "symmetric_conv") for step in grower.steps):
        draw_conv(grower, grower.choose(range(len(grower.shapes))))
        grower.drawn.append("conv")
    return grower.finish()


def _draw_part(grower: Grower, names: Sequence[str]) -> None:
    fits = {name: grower.values(lambda i, kind=KINDS[name]: kind.fits(grower, i)) for name in names}
    menu = [name for name in names if fits[name] for _ in range(KINDS[name].weight)]
    if menu:
        name = grower.pick(menu)
        KINDS[name].draw(grower, grower.choose(fits[name]))
        grower.drawn.append(name)


def seeded_network(seed: int, **options: Any) -> NetSpec:
    """The network of a seed: the same in every process. Options as for `draw_network`."""
    return draw_network(Seeded(seed), **options)


def networks(**options: Any) -> SearchStrategy[NetSpec]:
    """The hypothesis strategy of random networks. Options as for `draw_network`; needs hypothesis."""
    from hypothesis import strategies

    @strategies.composite
    def drawn(draw: Any) -> NetSpec:
        return draw_network(Drawn(draw), **options)

    return drawn()
