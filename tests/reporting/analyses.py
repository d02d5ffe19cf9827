"""Analyses made by hand: text, JSON and SARIF are tested without the engine that analyzes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from hypothesis import strategies as st

from padrewrite.analyses.analysis import Analysis, Finding, NodeRecord, SiteRecord
from padrewrite.analyses.border import Border
from padrewrite.analyses.chains import Chain, Gridding
from padrewrite.analyses.findings import CODES
from padrewrite.analyses.phases import AxisPhase
from padrewrite.analyses.size_forms import SizeForm, identity, reduced
from padrewrite.analyses.support import Reached
from padrewrite.ops.conv import Conv, TransposedConv
from padrewrite.ops.window import Window
from padrewrite.source import Source

CONV = Conv(Window((3, 3), (2, 2), (1, 1), (1, 1), (1, 1)), 3, 8, 1, True, ("zeros", "zeros"))


HALF = SizeForm(1, (0, 1))
"""``floor((H + 1)/2)``."""


def phase(scale: Any, offset: Any = 0) -> AxisPhase:
    return AxisPhase(Fraction(scale), Fraction(offset), Fraction(offset), Fraction(offset), (), 1)


def record(site: str = "stem", **kwargs: Any) -> SiteRecord:
    """A convolution from 32x48 to 16x24; ``kwargs`` replace any field."""
    layer = site.partition("@")[0]
    fields: dict[str, Any] = {
        "op": CONV,
        "source": "net.py:14",
        "input_size": (32, 48),
        "output_size": (16, 24),
        "size": (HALF,) * 2,
        "phase": (phase(2, "1/2"), phase(2, "1/2")),
        "receptive_field": (3, 3),
        "reached_of": {0: Reached((3, 3), 9)},
        "context": False,
        "valid_weights": Fraction(3337, 3456),
        "saw_padding": 0.1015625,
        "border": Border(0.98, 0.7, 0.85, 1.0),
        "partial_border": Border(1.02, 1.5, 1.25, 1.0),
        "weights": {f"{layer}.weight": 216, f"{layer}.bias": 8},
        "macs": 82944,
    }
    return SiteRecord(site, **{**fields, **kwargs})


def node(name: str = "head#interpolate.0", **kwargs: Any) -> NodeRecord:
    """A tensor of the input's size 32x48; ``kwargs`` replace any field."""
    fields: dict[str, Any] = {
        "call": "interpolate",
        "source": "net.py:20",
        "shape": (1, 21, 32, 48),
        "dims": (2, 3),
        "inputs": ((0, 2), (0, 3)),
        "size": (identity(),) * 2,
        "phase": (phase(1),) * 2,
        "receptive_field": (35, 35),
    }
    return NodeRecord(name, **{**fields, **kwargs})


def unknown(site: str = "stem", **kwargs: Any) -> SiteRecord:
    """What the module tree alone says about a convolution."""
    names = ("input_size", "output_size", "valid_weights", "saw_padding", "border", "partial_border", "macs")
    nothing = {**dict.fromkeys(names), **dict.fromkeys(("size", "phase", "receptive_field"), (None, None))}
    return record(site, **{**nothing, "reached_of": {}, "ended": "no example inputs were given", **kwargs})


def found(code: str = "padded-weights", site: str = "stem", message: str = "what is wrong", **kwargs: Any) -> Finding:
    """A finding with its code's severity; ``kwargs`` replace any field."""
    severity = CODES[code][0] if code in CODES else "note"
    return Finding(code, site, message, **{"severity": severity, "numbers": {"share": "1/4"}, **kwargs})


def gridding(rates: Sequence[int], hole_free: bool, score: float, networks: int = 1, m2: int = 2) -> Gridding:
    return Gridding(tuple(rates), (3,) * len(rates), m2, hole_free, score, networks)


def chain(sites: Sequence[str], lead_in: Sequence[str] = (), axes: tuple[int, ...] = (0, 1)) -> Chain:
    """A chain of rate 2 that splits by itself and is filled by what leads into it."""
    rates = [2] * len(sites)
    alone = gridding(rates, False, 1.0, 2)
    together = gridding([*(1 for _ in lead_in), *rates], True, 1 / 3) if lead_in else alone
    return Chain(tuple(sites), tuple(lead_in), axes, alone, together)


def make_analysis(
    records: Sequence[SiteRecord] | None = None, findings: Sequence[Finding] = (), **kwargs: Any
) -> Analysis:
    """An analysis of one strided convolution unless ``records`` says otherwise."""
    fields: dict[str, Any] = {"model": "Net", "how": "symbolic", "input": "1x3x32x48", "calls": 7, "chains": ()}
    sites = {one.id: one for one in ([record()] if records is None else records)}
    return Analysis(sites=sites, findings=tuple(findings), **{**fields, **kwargs})


_words = st.text(max_size=120) | st.text("abc.#@[]/", max_size=160)
_forms = st.builds(reduced, st.integers(0, 10**6), st.lists(st.integers(-99, 10**6), min_size=1, max_size=9))
_fractions = st.fractions(min_value=-9999, max_value=9999)
_sizes = st.integers(0, 10**9)
_borders = st.builds(Border, *[st.floats(0, 9)] * 4)


@st.composite
def _ops(draw: st.DrawFn, rank: int) -> Conv | TransposedConv:
    axes = [tuple(draw(st.lists(st.integers(0, 999), min_size=rank, max_size=rank))) for _ in range(5)]
    channels = [draw(st.integers(1, 4096)) for _ in range(3)]
    if draw(st.booleans()):
        return TransposedConv(Window(*axes), *channels, bias=draw(st.booleans()), output_padding=axes[0])
    mode = draw(st.sampled_from(["zeros", "circular"]))
    return Conv(Window(*axes), *channels, bias=draw(st.booleans()), modes=(mode,) * rank)


@st.composite
def records(draw: st.DrawFn) -> SiteRecord:
    """Any record: names as long and strange as a module tree allows, numbers known or not."""
    rank = draw(st.integers(1, 3))

    def axes(values: st.SearchStrategy[Any]) -> Any:
        return tuple(draw(st.lists(values, min_size=rank, max_size=rank)))

    phases = st.builds(phase, st.fractions(min_value=Fraction(1, 99), max_value=9999), _fractions)
    known = record(
        draw(_words),
        op=draw(_ops(rank)),
        source=draw(st.none() | _words),
        input_size=draw(st.none() | st.just(axes(_sizes))),
        output_size=draw(st.none() | st.just(axes(_sizes))),
        size=axes(st.none() | _forms),
        phase=axes(st.none() | phases),
        receptive_field=axes(st.none() | _sizes),
        reached_of=draw(st.just({}) | st.just({0: Reached(axes(st.integers(1, 99)), 1)})),
        context=draw(st.booleans()),
        valid_weights=draw(st.none() | st.fractions(0, 1)),
        saw_padding=draw(st.none() | st.floats(0, 1)),
        border=draw(st.none() | _borders),
        weights={"weight": draw(_sizes)},
        macs=draw(st.none() | _sizes),
    )
    return replace(known, ended=draw(st.none() | _words))


@st.composite
def _nodes(draw: st.DrawFn) -> NodeRecord:
    rank = draw(st.integers(0, 3))

    def axes(values: st.SearchStrategy[Any]) -> tuple[Any, ...]:
        return tuple(draw(st.lists(values, min_size=rank, max_size=rank)))

    return node(
        draw(_words),
        call=draw(_words),
        source=draw(st.none() | _words),
        shape=(1, 2, *axes(_sizes)),
        dims=tuple(range(2, 2 + rank)),
        inputs=axes(st.tuples(st.integers(0, 9), st.integers(0, 9))),
        size=axes(st.none() | _forms),
        phase=axes(st.none() | st.builds(phase, st.just(2), _fractions)),
        receptive_field=axes(st.none() | _sizes),
        ended=draw(st.none() | _words),
    )


@st.composite
def _findings(draw: st.DrawFn, sites: Sequence[str]) -> Finding:
    names = st.sampled_from([*sites, "(model)", "head#cat"])
    return found(
        draw(st.sampled_from(sorted(CODES))),
        draw(names),
        draw(_words | st.just("the same")),
        cure=draw(st.none() | _words | st.just("partial-padding")),
        source=draw(st.none() | _words | st.just(Source(__file__, 3))),
        sites=tuple(draw(st.lists(names, max_size=6))),
    )


@st.composite
def analyses(draw: st.DrawFn) -> Analysis:
    """Any analysis of up to a few convolutions, with findings and a chain."""
    sites = draw(st.lists(records(), max_size=4))
    names = [one.id for one in sites]
    texts = {name: draw(_words) for name in ("model", "how", "input")}
    chains = ()
    if names:
        members = draw(st.lists(st.sampled_from(names), min_size=2, max_size=5))
        chains = (chain(members, draw(st.lists(st.sampled_from(names), max_size=2))),)
    return make_analysis(
        sites,
        draw(st.lists(_findings(names), max_size=12)),
        **texts,
        calls=draw(st.none() | _sizes),
        chains=chains,
        notes=tuple(draw(st.lists(_words, max_size=2))),
        nodes={one.id: one for one in draw(st.lists(_nodes(), max_size=3))},
        outputs=tuple(draw(st.lists(_nodes(), max_size=3))),
    )
