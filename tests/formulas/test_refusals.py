"""Bad numbers: an error that quotes the value and says what to give instead."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from padrewrite.formulas import (
    assign_rates,
    erosion,
    gridding_score,
    is_hole_free,
    max_gap,
    path_counts,
    valid_count,
    valid_weight_fraction,
)

REFUSED: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], str]] = [
    (max_gap, ([],), {}, r"rates is \[\], which has no layer; give the dilation"),
    (max_gap, ([1, 0],), {}, r"rates\[1\] is 0, .*; an undilated layer has rate 1"),
    (max_gap, ([1, 2],), {"kernel": 1}, r"kernel is 1, .*; .* leave such layers out"),
    (is_hole_free, ((), 3), {}, r"rates is \(\), which has no layer"),
    (is_hole_free, ((1, -2), 3), {}, r"rates\[1\] is -2"),
    (is_hole_free, ((1, 2), 0), {}, r"kernels\[0\] is 0"),
    (is_hole_free, ((1, 2), (3, 3, 3)), {}, r"kernels has 3 entries for 2 rates; give one per layer, or one integer"),
    (is_hole_free, ((1, 2), 3, (1,)), {}, r"strides has 1 entries for 2 rates"),
    (is_hole_free, ((1, 2), 3, (1, 0)), {}, r"strides\[1\] is 0"),
    (path_counts, ([], 3), {}, r"rates is \[\]"),
    (path_counts, ([1, 2], [3]), {}, r"kernels has 1 entries for 2 rates"),
    (gridding_score, ([], 3), {}, r"rates is \[\]"),
    (gridding_score, ([0], 3), {}, r"rates\[0\] is 0"),
    (gridding_score, ([1.5], 3), {}, r"rates\[0\] is 1.5, which is no integer"),
    (gridding_score, ([1, 2], [3]), {}, r"kernels has 1 entries for 2 rates"),
    (assign_rates, ([],), {}, r"rates is \[\]"),
    (assign_rates, ([2, 0],), {}, r"rates\[1\] is 0"),
    (assign_rates, ([2],), {"kernel": 1}, r"kernel is 1"),
    (assign_rates, ([2],), {"group": 0}, r"group is 0, .*; give the layers per group"),
    (assign_rates, ([2],), {"policy": "best"}, r"policy='best' is unknown; choose one of 'optimal', 'none', 'conv', "),
    (assign_rates, ([2],), {"scope": "net"}, r"scope='net' is unknown; choose one of 'group', 'chain'"),
    (assign_rates, ([2, 8],), {"policy": "bigger"}, r"rates contains 8; policy 'bigger' knows 1, 2, 4: use 'optimal'"),
    (valid_weight_fraction, (0, 1), {}, r"size is 0, .*; give the height of the map"),
    (valid_weight_fraction, (65, 0), {}, r"rate is 0"),
    (valid_weight_fraction, (65, 1, 0), {}, r"kernel is 0"),
    (erosion, (0, 1, 8), {}, r"kernel is 0"),
    (valid_count, (-1, 3, 1, 1, 1, 1), {}, r"size is -1"),
    (valid_count, (5, 0, 1, 1, 1, 1), {}, r"kernel is 0"),
    (valid_count, (5, 3, 0, 1, 1, 1), {}, r"stride is 0"),
    (valid_count, (5, 3, 1, 0, 1, 1), {}, r"dilation is 0"),
    (erosion, (3, -1, 8), {}, r"layers is -1"),
    (erosion, (3, 1, 0), {}, r"size is 0"),
    (erosion, (3, 2, 8), {"downsample_after": (0,)}, r"downsample_after names layer 0 of 2; count the layers from 1"),
    (erosion, (3, 2, 8), {"downsample_after": (1, 3)}, r"downsample_after names layer 3 of 2"),
]


@pytest.mark.parametrize(("function", "arguments", "options", "message"), REFUSED)
def test_refused(
    function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match="^" + message) as caught:
        function(*arguments, **options)
    assert not re.search(r"\bNone\b", str(caught.value))


NUMBERS: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    (valid_count, {"size": 5, "kernel": 3, "stride": 1, "dilation": 1, "pad_lo": 1, "pad_hi": 1}),
    (valid_weight_fraction, {"size": 5, "rate": 1, "kernel": 3}),
    (max_gap, {"rates": [1, 2], "kernel": 3}),
    (is_hole_free, {"rates": [1, 2], "kernels": 3, "strides": 1}),
    (path_counts, {"rates": [1, 2], "kernels": 3}),
    (gridding_score, {"rates": [1, 2], "kernels": 3}),
    (assign_rates, {"rates": [2, 2], "kernel": 3, "group": 3}),
    (assign_rates, {"rates": [2, 2], "policy": "optimal", "scope": "group"}),
    (erosion, {"kernel": 3, "layers": 2, "size": 8, "downsample_after": ()}),
]


@pytest.mark.parametrize(
    ("function", "good", "name"), [(function, good, name) for function, good in NUMBERS for name in good]
)
@pytest.mark.parametrize("bad", [None, 1.5, "x", True, -1, [None, 1], [1.5, 1], {}])
def test_what_is_no_number_is_quoted(function: Callable[..., Any], good: dict[str, Any], name: str, bad: Any) -> None:
    function(**good)
    allowed = {"strides": (None,), "downsample_after": ({},), "pad_lo": (-1,), "pad_hi": (-1,)}
    if bad in allowed.get(name, ()):
        function(**{**good, name: bad})
        return
    with pytest.raises(ValueError, match=name) as caught:
        function(**{**good, name: bad})
    entry = bad[0] if isinstance(bad, list) else bad
    assert repr(entry) in str(caught.value) or "entries" in str(caught.value)
