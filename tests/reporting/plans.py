"""Plans, decisions and evidence made by hand: the text is tested without the engine that decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from padrewrite.analyses.costs import Cost
from padrewrite.checks.verification import Verification
from padrewrite.contracts import Evidence
from padrewrite.plans import Decision, PassSummary, Plan

SPEC: dict[str, Any] = {
    "kernel_size": (3, 3),
    "stride": (1, 1),
    "dilation": (1, 1),
    "padding": ((1, 1), (1, 1)),
    "groups": 1,
    "in_channels": 8,
    "out_channels": 8,
    "padding_mode": "zeros",
    "transposed": False,
}
PARTIAL = {**SPEC, "padding_mode": "partial"}


def decide(site: str, status: Any = "rewritten", code: str = "", reason: str = "", **kwargs: Any) -> Decision:
    """A decision of partial padding; ``kwargs`` replace any field."""
    done = status == "rewritten"
    fields: dict[str, Any] = {
        "contract": "interior(1..1, 1..1)" if done else None,
        "before": SPEC,
        "after": PARTIAL if done else SPEC,
        "source": "net.py:14",
    }
    return Decision(site, "partial-padding", status, code or status, reason, **{**fields, **kwargs})


def summarise(
    decisions: Sequence[Decision], spec: str = "partial-padding", macs: tuple[int, int] | None = (100, 100)
) -> PassSummary:
    count = {s: sum(d.status == s for d in decisions) for s in ("rewritten", "kept", "refused")}
    before, after = (Cost(1000, None if macs is None else macs[i], None if macs is None else 427) for i in (0, 1))
    numbers = (len(decisions), count["rewritten"], count["kept"], count["refused"])
    return PassSummary(spec, spec.partition("{")[0], *numbers, "interior", before, after)


def make_plan(*passes: Sequence[Decision], specs: Sequence[str] = (), **kwargs: Any) -> Plan:
    """A plan of one pass for each list of decisions."""
    names = list(specs) or ["partial-padding"] * len(passes)
    fields: dict[str, Any] = {
        "model": "ResNet",
        "how": "symbolic",
        "calls": 175,
        "input": "1x3x224x224",
        "inputs": None,
        "mode": "eval",
        "tree": "t",
        "fingerprint": "f",
        "predicted": "p",
        "edits": (),
    }
    macs = kwargs.pop("macs", (100, 100))
    return Plan(
        passes=tuple(summarise(d, name, macs) for d, name in zip(passes, names)),
        decisions=tuple(d for one in passes for d in one),
        **{**fields, **kwargs},
    )


def show(site: str = "a", contract: str = "interior", error: float = 0.0, **kwargs: Any) -> Evidence:
    """A check that held; ``kwargs`` replace any field."""
    return Evidence(site, contract, error, **{"vacuous": False, "ok": True, "positions": 10, **kwargs})


_words = st.text(max_size=160) | st.text("abc.[]/", max_size=160)
_sizes = st.integers(0, 10**6)
_axes = st.lists(_sizes, min_size=1, max_size=3).map(tuple)


@st.composite
def _specs(draw: st.DrawFn) -> dict[str, Any]:
    pairs = st.lists(st.tuples(_sizes, _sizes), min_size=1, max_size=3).map(tuple)
    modes = st.sampled_from(["zeros", "partial", "circular"])
    return {
        **{name: draw(_axes) for name in ("kernel_size", "stride", "dilation")},
        **{name: draw(_sizes) for name in ("groups", "in_channels", "out_channels")},
        "padding": draw(pairs),
        "padding_mode": draw(modes | st.tuples(modes, modes)),
        "transposed": draw(st.booleans()),
        "scale": draw(st.sampled_from(["mean", "sqrt"])),
    }


@st.composite
def decisions(draw: st.DrawFn) -> Decision:
    """Any decision, with names as long and as strange as a module tree allows."""
    status = draw(st.sampled_from(["rewritten", "kept", "refused"]))
    texts = {name: draw(st.none() | _words) for name in ("contract", "source")}
    specs = {name: draw(_specs()) for name in ("before", "after")}
    return decide(draw(_words), status, draw(_words), draw(_words), **texts, **specs)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Any plan of one to three passes; some have more sites than are listed one by one."""
    passes = draw(st.lists(st.lists(decisions(), max_size=6), min_size=1, max_size=3))
    passes = [one * draw(st.sampled_from([1, 1, 8])) for one in passes]
    specs = [draw(_words) for _ in passes]
    texts = {name: draw(_words) for name in ("model", "how", "input")}
    notes = tuple(draw(st.lists(_words, max_size=3)))
    macs = draw(st.none() | st.tuples(_sizes, _sizes))
    return make_plan(*passes, specs=specs, calls=draw(_sizes), notes=notes, macs=macs, **texts)


@st.composite
def verifications(draw: st.DrawFn) -> Verification:
    """Any evidence, NaN and infinite errors included."""
    names = _words | st.just("end to end")
    kinds = st.sampled_from(["interior(1..1)", "reference", "exact"]) | _words
    one = st.builds(show, names, kinds, st.floats(min_value=0), vacuous=st.booleans(), ok=st.booleans(), note=_words)
    return Verification(tuple(draw(st.lists(one, max_size=12))), tuple(draw(st.lists(_words, max_size=2))))
