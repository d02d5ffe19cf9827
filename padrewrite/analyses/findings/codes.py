"""The codes of findings."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import torch.fx as fx

from padrewrite.analyses.analysis import Finding, Severity
from padrewrite.analyses.layout import Origin
from padrewrite.analyses.scene import Scene
from padrewrite.graph import Site
from padrewrite.ops.step import shape_of

T = TypeVar("T")

CODES: Mapping[str, tuple[Severity, str]] = {
    "gridding": ("warning", "a dilated chain leaves holes, even with the convolutions that lead into it"),
    "misaligned-merge": ("warning", "an add or concat joins branches that sit on different coordinates"),
    "half-pixel-shift": ("warning", "an odd d(k-1) at stride 1 moves every output by half a pixel"),
    "shifted-output": ("warning", "an output of the input's size does not sit on the input's pixels"),
    "padded-weights": ("warning", "fewer than half of a convolution's weights meet real input"),
    "degenerate-kernel": ("warning", "some taps of a kernel never see the input at this size"),
    "blind-outputs": ("warning", "some outputs of a convolution see nothing but padding"),
    "dead-positions": ("warning", "a quarter or more of an input or of a computed tensor is never read"),
    "uneven-overlap": ("warning", "a transposed convolution overlaps unevenly: a checkerboard"),
    "weak-gridding": ("note", "a dilated chain leaves holes by itself; the convolutions before it fill them"),
    "uneven-padding": ("note", "strided windows read more padding on one side than on the other at this size"),
    "zero-border": ("note", "made-up zeros enter at the border"),
    "padded-average": ("note", "an average pool counts padding zeros"),
    "field-beyond-input": ("note", "convolutions read receptive fields that exceed the input by every path"),
    "oversized-kernel": ("note", "a large dense kernel that a separable one could stand in for"),
    "size-requirement": ("note", "the model runs at some input sizes only"),
    "reasoning-ended": ("note", "positions are not followed past some call"),
}
"""Every code: its severity, and what it means."""


def finding(code: str, site: str, message: str, numbers: Mapping[str, Any], **rest: Any) -> Finding:
    """A finding with its code's severity."""
    return Finding(code, site, message, CODES[code][0], numbers, **rest)


def many(count: int, singular: str) -> str:
    """``3 convolutions``, ``1 convolution``."""
    return f"{count} {singular}{'s' * (count != 1)}"


def names(sites: list[str] | tuple[str, ...], most: int = 3) -> str:
    """A few of ``sites``, and how many more there are."""
    shown = ", ".join(sites[:most])
    return shown if len(sites) <= most else f"{shown} and {len(sites) - most} more"


def axes_text(axes: list[int] | tuple[int, ...], site: Site) -> str:
    """``along dimension 2`` of what a site reads, or nothing where all its axes are meant."""
    rank = site.op.window.rank
    if len(axes) == rank:
        return ""
    lead = len(site.input_shape) - rank if site.input_shape else 2
    return f" along dimension {', '.join(str(lead + a) for a in axes)}"


def per_dim(node: fx.Node, clauses: Mapping[int, str], among: Collection[int], scene: Scene) -> str:
    """What is to be said of dimensions, equal clauses once: of which, unless of all ``among``."""
    alike: dict[str, list[int]] = {}
    for d, text in clauses.items():
        alike.setdefault(text, []).append(d)
    if len(alike) == 1 and set(clauses) >= set(among):
        return next(iter(alike))
    axes = scene.layout.axes[node]
    told = {text: [axis for d in dims if isinstance(axis := axes[d], Origin)] for text, dims in alike.items()}
    return " and ".join(f"{text} along {dims_text(origins)}" for text, origins in told.items())


def modulo_text(residues: Sequence[int], period: int) -> str:
    """``0, 1 modulo 8``."""
    shown = ", ".join(map(str, residues[:6])) + (", ..." if len(residues) > 6 else "")
    return f"{shown} modulo {period}"


def runs_text(numbers: Sequence[int]) -> str:
    """``29 to 32``, ``7, 9 to 11``: ascending numbers, those that follow each other together."""
    firsts = [n for n in numbers if n - 1 not in numbers]
    lasts = [n for n in numbers if n + 1 not in numbers]
    return ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in zip(firsts, lasts))


def dims_text(axes: Sequence[Origin]) -> str:
    """``input dimensions 2 and 3``."""
    one = len({axis.input for axis in axes}) == 1 and axes[0].input == 0
    texts = [f"{axis.dim}" if one else f"{axis.dim} of input {axis.input}" for axis in axes]
    listed = " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)
    return f"input dimension{'s' * (len(axes) > 1)} {listed}"


def in_order(found: Mapping[Origin, T]) -> list[tuple[Origin, T]]:
    """What was found of input dimensions, by their number."""
    return sorted(found.items(), key=lambda one: (one[0].input, one[0].dim))


def input_size(scene: Scene, axis: Origin) -> int:
    """The recorded size of an input dimension."""
    return shape_of(scene.layout.inputs[axis.input])[axis.dim]
