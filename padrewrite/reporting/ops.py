"""A convolution in a few characters: ``k3 s2 p1 d1``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def change_text(before: Mapping[str, Any], after: Mapping[str, Any], brief: bool = False) -> str:
    """``k3 s2 p1 d1 -> k3 s1 p2 d2``, from the ``before`` and ``after`` of a decision.

    With ``brief`` only what changes follows the arrow: ``k3 s2 p1 d1 -> s1 p2 d2``.
    """
    made = "branches" in after or "attached" in after
    old, new = _parts(before), [_layers(after)] if made else _parts(after)
    if any(c in after and before.get(c) != after[c] for c in ("in_channels", "out_channels")):
        old, new = [*old, _channels(before)], [*new, _channels(after)]
    shown = [part for part in new if part not in old] if brief else new
    return f"{' '.join(old)} -> {' '.join(shown or new)}"


def _layers(spec: Mapping[str, Any]) -> str:
    """``7x1 1x7 + 1x7 7x1, c64``: the branches of a layer, and the channels between."""
    if "attached" in spec:
        return f"+ {_branches(spec['attached'])}"
    if not spec["branches"]:
        return "passed on"
    middle = {part["out_channels"] for branch in spec["branches"] for part in branch[:-1] if "out_channels" in part}
    channels = f", c{'|'.join(map(str, sorted(middle)))}" if middle else ""
    return f"{_branches(spec['branches'])}{channels}"


def _branches(branches: Any) -> str:
    return " + ".join(" ".join(map(_part, branch)) for branch in branches)


def _part(spec: Mapping[str, Any]) -> str:
    words = [] if spec["op"] == "conv" else [spec["op"]]
    words += ["x".join(map(str, spec["kernel_size"]))] if "kernel_size" in spec else []
    return " ".join([*words, "symmetric"] if spec.get("symmetric") else words)


def spec_text(spec: Mapping[str, Any]) -> str:
    """Kernel, stride, padding and dilation, then whatever is not the ordinary.

    Axes that agree are written once, others as ``1x3``; padding that differs by side is ``p(0,1)``.
    """
    return " ".join(_parts(spec))


def _parts(spec: Mapping[str, Any]) -> list[str]:
    parts = [
        "k" + _axes(spec["kernel_size"]),
        "s" + _axes(spec["stride"]),
        "p" + _axes([_pair(p) for p in spec["padding"]]),
        "d" + _axes(spec["dilation"]),
    ]
    if spec.get("transposed"):
        parts.insert(0, "transposed")
    if spec.get("groups", 1) != 1:
        parts.append("depthwise" if _is_depthwise(spec) else f"g{spec['groups']}")
    if "order" in spec:
        parts.append("symmetric" + _axes_of(spec) + ("" if spec["order"] == "balanced" else f"({spec['order']})"))
    mode = spec.get("padding_mode", "zeros")
    name = mode if isinstance(mode, str) else "|".join(map(str, mode))
    if spec.get("scale", "mean") != "mean":
        name = f"{name}({spec['scale']})"
    return parts if name == "zeros" else [*parts, name]


def _axes_of(spec: Mapping[str, Any]) -> str:
    """Nothing where every even axis is symmetric, else which ones are."""
    even = [axis for axis, k in enumerate(spec["kernel_size"]) if k % 2 == 0]
    axes = list(spec["symmetric_axes"])
    return "" if axes == even else f"[{','.join(map(str, axes))}]"


def _channels(spec: Mapping[str, Any]) -> str:
    return f"c{spec['in_channels']}>{spec['out_channels']}"


def _axes(values: Any) -> str:
    texts = [str(v) for v in values]
    return texts[0] if len(set(texts)) == 1 else "x".join(texts)


def _pair(pair: Any) -> str:
    lo, hi = pair
    return str(lo) if lo == hi else f"({lo},{hi})"


def _is_depthwise(spec: Mapping[str, Any]) -> bool:
    return spec["groups"] == spec["in_channels"] == spec["out_channels"]
