"""What ``analyze`` returns: a record per convolution call and per tensor, the dilated chains, the findings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, TypeVar

from padrewrite.__about__ import VERSION
from padrewrite.analyses.border import Border
from padrewrite.analyses.chains import Chain
from padrewrite.analyses.phases import AxisPhase
from padrewrite.analyses.size_forms import SizeForm
from padrewrite.analyses.support import Reached
from padrewrite.errors import UnknownNameError
from padrewrite.ops.conv import Conv, TransposedConv

T = TypeVar("T")
SCHEMA = "padrewrite.analysis/1"
Severity = Literal["warning", "note"]


@dataclass(frozen=True)
class SiteRecord:
    """One convolution call. Per-axis fields run over its spatial axes, first to last; None: it is not known."""

    id: str
    op: Conv | TransposedConv
    source: str | None
    """file:line of the call."""
    input_size: tuple[int, ...] | None
    output_size: tuple[int, ...] | None
    size: tuple[SizeForm | None, ...]
    """Output size as a function of the model input's size H along the same axis."""
    phase: tuple[AxisPhase | None, ...]
    """Of its output: position i sits at input coordinate scale*i + offset, exactly."""
    receptive_field: tuple[int | None, ...]
    """Input pixels that one output depends on, were the input endless. Global pools and gates left out."""
    reached_of: Mapping[int, Reached]
    """By input tensor: its positions that really reach the output in the middle, at the recorded size.

    What arrives as context is left out: an input that arrives in no other way is missing.
    """
    context: bool
    """Everything else reaches it too, through a global pool, a gate or a norm's statistics."""
    valid_weights: Fraction | None
    """Share of the weights that multiply real input, over all outputs."""
    saw_padding: float | None
    """Share of the outputs that depend on a made-up value, here or in an earlier layer."""
    border: Border | None
    """Mean-field signal of the output; ``border.q`` is the information left (erosion)."""
    partial_border: Border | None
    """The same if all zero padding up to here were partial padding."""
    weights: Mapping[str, int]
    """Number of elements of each parameter behind its weight and bias, by name; none behind a kernel that is a feature
    of the input. Of a parametrized weight these are the original parameters."""
    macs: int | None
    """Multiply-accumulates of the call as it ran on the example inputs, all samples of its batch."""
    ended: str | None = None
    """Why spatial reasoning ended before this site."""
    field_ended: str | None = None
    """Why the receptive field is not known where spatial reasoning did not end."""

    @property
    def parameters(self) -> int:
        """Elements of all parameters behind it."""
        return sum(self.weights.values())

    @property
    def reached(self) -> Reached | None:
        """What is reached of the input, if it is of one alone."""
        return next(iter(self.reached_of.values())) if len(self.reached_of) == 1 else None


@dataclass(frozen=True)
class NodeRecord:
    """A tensor: a model input or the result of a call. Per-axis fields run over ``dims``; None: it is not known."""

    id: str
    """A convolution's site id, a pool's id, else module, function and a number: ``head#interpolate.0``."""
    call: str
    """The torch function that makes it; "input" of the model's inputs."""
    source: str | None
    """file:line of the call."""
    shape: tuple[int, ...]
    """At the recorded size."""
    dims: tuple[int, ...]
    """Its dimensions that carry positions of an input: those that some call of the model slides over or resizes."""
    inputs: tuple[tuple[int, int], ...]
    """(input, dimension) whose positions each carries."""
    size: tuple[SizeForm | None, ...]
    """As a function of the size H of that dimension of that input."""
    phase: tuple[AxisPhase | None, ...]
    """Position i sits at input coordinate scale*i + offset, exactly."""
    receptive_field: tuple[int | None, ...]
    """Input pixels that one position depends on, were the input endless. Global pools and gates left out."""
    ended: str | None = None
    """Why positions of other dimensions were lost, if some were."""

    @property
    def unchanged(self) -> bool | None:
        """Whether it is as large as the input for every input size, along each of ``dims``. A proof, not a sample.

        It is about sizes at which the forward takes the recorded path: those of ``Analysis.conditions``.
        None: it has no positions, some were lost, or a size is not known. ``size[axis]`` says where it is not
        (``changed``) and from which size on that holds (``since``).
        """
        known = [form for form in self.size if form is not None]
        if not known or len(known) < len(self.size) or self.ended is not None:
            return None
        return all(form.unchanged for form in known)


@dataclass(frozen=True)
class Finding:
    """One thing that is spatially wrong, or worth knowing."""

    code: str
    """Stable name; docs/findings/<code>.md explains it."""
    site: str
    """A site id, the id of another call (that of its ``NodeRecord``, where it has positions), or "(model)"."""
    message: str
    severity: Severity
    numbers: Mapping[str, Any]
    """What the message says, for machines. Fractions are text."""
    cure: str | None = None
    """The pass that would cure it, with options."""
    source: str | None = None
    """file:line."""
    sites: tuple[str, ...] = ()
    """All sites that it is about, where there are several."""


class Records(dict[str, T]):
    """Records by their ids; asked for another one it raises an ``UnknownNameError``."""

    def __missing__(self, name: str) -> T:
        raise unknown(name, "record", self)


def unknown(name: str, kind: str, known: Iterable[str]) -> UnknownNameError:
    """The error that says so."""
    from padrewrite.selecting import closest

    return UnknownNameError(f"{name}: no such {kind}. Nearest: {', '.join(closest(name, known)) or 'none'}.")


@dataclass(frozen=True)
class Analysis:
    """What is spatially true of a model, and what is wrong with it."""

    model: str
    how: str
    """How it was recorded; without example inputs "module tree", and then only windows are known."""
    input: str | None
    """The inputs' shapes."""
    calls: int | None
    sites: Mapping[str, SiteRecord]
    chains: tuple[Chain, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()
    nodes: Mapping[str, NodeRecord] = field(default_factory=dict[str, NodeRecord])
    """Every tensor that has positions, inputs too, in execution order; those of convolutions have their site ids."""
    outputs: tuple[NodeRecord, ...] = ()
    """The model's output tensors, each once; those without positions have no ``dims``."""
    conditions: tuple[str, ...] | None = None
    """What the forward's own code asked about its inputs' sizes, as it was answered, where answers can differ:
    ``"input_0_size_2 % 2 == 0"``. What is said of other sizes holds where all are true. None if it is not
    known: of recordings on real inputs, and where positions run along the first two dimensions, which are numbers."""

    @property
    def parameters(self) -> int:
        """Elements of all parameters behind weights and biases of convolution sites, each parameter once."""
        return sum({name: n for record in self.sites.values() for name, n in record.weights.items()}.values())

    @property
    def macs(self) -> int | None:
        """Multiply-accumulates of all convolution calls on the example inputs, all samples of the batch."""
        known = [record.macs for record in self.sites.values()]
        return None if any(m is None for m in known) else sum(m for m in known if m is not None)

    def of(self, code: str) -> tuple[Finding, ...]:
        """The findings with a code.

        Raises:
            UnknownNameError: there is no such code.
        """
        from padrewrite.analyses.findings.codes import CODES

        if code not in CODES:
            raise unknown(code, "finding", CODES)
        return tuple(finding for finding in self.findings if finding.code == code)

    def table(self, full: bool = False) -> str:
        """The analysis as text; with ``full`` every convolution."""
        from padrewrite.reporting.analysis import analysis_text

        return analysis_text(self, full)

    def to_json(self) -> str:
        """Deterministic JSON, schema ``padrewrite.analysis/1``. Fractions are text ("1/2")."""
        from padrewrite.analyses.encoding import analysis_json

        return json.dumps({"schema": SCHEMA, "version": VERSION, **analysis_json(self)}, indent=1)

    def __str__(self) -> str:
        return self.table()
