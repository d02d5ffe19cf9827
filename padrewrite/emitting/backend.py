"""The torch.compile backend: rewrites the graph that Dynamo captured, then hands it to Inductor.

The rewrite comes before any compiler cache is asked, so it runs, and is reported, in every process::

    torch.compile(model, backend="padrewrite", options={"passes": ["partial-padding"]})
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.fx as fx
from torch import nn

from padrewrite.emitting.compilers import Compiler, find_compiler
from padrewrite.emitting.dialect import Part, read_parts
from padrewrite.emitting.ledger import Ledger
from padrewrite.emitting.legality import Emitted
from padrewrite.emitting.lowering import lower
from padrewrite.emitting.naming import Namer, frame_id, is_split
from padrewrite.emitting.peers import peers_of
from padrewrite.errors import NoEffectError, PassError, SelectorError
from padrewrite.graph import Graph, Site
from padrewrite.planning import run_pass
from padrewrite.plans import Decision, Plan
from padrewrite.recording.models import check_model
from padrewrite.registry import parse_passes
from padrewrite.rewriting import Pass
from padrewrite.selecting import Names, Where, select

HOW_TO = "torch.compile(model, backend='padrewrite', options={'passes': ['partial-padding']})"


class Backend:
    """A backend for one model. It remembers what it decided in each of the model's graphs.

    Calling it rewrites and compiles one graph and judges nothing; ``judge`` raises what ``plan`` would raise, for
    all graphs seen so far. ``compile_model`` judges after the model's first call.

    Args:
        passes, include, exclude, where, allow_no_effect: as for ``plan``.
        inner: what compiles the rewritten graph, by name or as a callable.
        mode, options: for Inductor, as for ``torch.compile``.
        model: lets names be the model's own where Dynamo compiles a submodule's forward by itself.

    Raises:
        PassError: an unknown pass, option, mode or inner backend.
    """

    __name__ = "padrewrite"

    def __init__(
        self,
        passes: Iterable[str | Pass] = (),
        *,
        include: Names = None,
        exclude: Names = None,
        where: Where = None,
        allow_no_effect: bool = False,
        inner: str | Compiler = "inductor",
        mode: str | None = None,
        options: Mapping[str, Any] | None = None,
        model: nn.Module | None = None,
    ) -> None:
        self.passes = parse_passes(passes)
        self._selectors = (include, exclude, where)
        self._allow_no_effect = allow_no_effect
        self._compile = find_compiler(inner, mode, options or {})
        self._model = model
        self.reset()

    def reset(self) -> None:
        """Forgets every graph; ``torch._dynamo.reset`` calls it."""
        self._namer = Namer(self._model)
        self._ledger = Ledger(self.passes, self._model)
        getattr(self._compile, "reset", lambda: None)()

    def __call__(self, gm: fx.GraphModule, example_inputs: list[Any]) -> Callable[..., Any]:
        self.rewrite(gm, example_inputs)
        return self.hand_on(gm, example_inputs)

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """One per pass and convolution, over all graphs seen; passes in the order in which they run."""
        return tuple(d for index in range(len(self.passes)) for d in self._ledger.decisions_of(index))

    @property
    def sites(self) -> tuple[Site, ...]:
        """The convolution calls of all graphs seen."""
        return tuple(self._ledger.sites.values())

    def plan(self) -> Plan:
        """The decisions as a plan, for ``report``."""
        return self._ledger.plan()

    def judge(self) -> None:
        """Judges the graphs seen so far together.

        Raises:
            SelectorError: include, exclude or where selected no convolution of any graph.
            NoEffectError: a pass changed nothing in any graph.
        """
        self._ledger.judge(*self._selectors, self._allow_no_effect)

    def rewrite(self, gm: fx.GraphModule, example_inputs: list[Any]) -> None:
        """Rewrites one graph of Dynamo's in place; on an error it is as it was."""
        parts = read_parts(self._namer, gm, example_inputs)
        graphs = [self._run(part, (frame_id(), part.root, n)) for n, part in enumerate(parts)]
        changed = [(part.owner, graph.nodes) for part, graph in zip(parts, graphs) if graph is not part.graph]
        lowered = [(owner, lower(nodes, owner.graph)) for owner, nodes in changed if nodes is not None]
        for owner, nodes in lowered:
            owner.graph = nodes

    def hand_on(self, gm: fx.GraphModule, example_inputs: list[Any]) -> Callable[..., Any]:
        """Compiles a graph with the inner compiler."""
        compiled = self._compile(gm, example_inputs)
        return self._ledger.witnessed(compiled, example_inputs) if self._namer.root else compiled

    def _run(self, part: Part, name: Any) -> Graph:
        """The graph after all passes; what they decide goes into the ledger."""
        self._check_selectors(part)
        self._ledger.add_graph(name, part.sites, part.calls)
        chosen = frozenset(site.id for site in part.sites if self._chooses(site))
        graph = part.graph
        for index, one in enumerate(self.passes):
            emitted = Emitted(one, part.refusals)
            outcome = run_pass(emitted, graph, chosen, None)
            self._ledger.add(name, index, outcome)
            self._ledger.add((*name, "fixed"), index, run_pass(emitted, part.fixed, chosen, None))
            graph = outcome.graph
        return graph

    def _chooses(self, site: Site) -> bool:
        """Whether the selectors choose a site, judged without the others."""
        include, exclude, where = self._selectors

        def matches(pattern: str) -> bool:
            try:
                return bool(select([site], pattern, None, None, ""))
            except SelectorError:
                return False

        wanted = include is None or any(matches(p) for p in _listed(include))
        return wanted and not any(matches(p) for p in _listed(exclude)) and (where is None or bool(where(site)))

    def _check_selectors(self, part: Part) -> None:
        """Modules that share a graph cannot be told apart in it."""
        if part.repeated and part.sites and any(s is not None for s in self._selectors):
            raise SelectorError(
                f"several modules run the region compiled for {part.sites[0].fqn}, so include, exclude and where "
                "cannot tell them apart. Compile transform(model, ...), or leave the selectors out."
            )
        if self._model is None:
            return
        for site in part.sites:
            for peer in peers_of(self._model, part.root, site):
                self._ledger.serve(site, peer)
                if self._chooses(peer) != self._chooses(site):
                    raise SelectorError(
                        f"Dynamo split the model and compiles {part.root} by itself, so {site.id} and {peer.id} run in "
                        "one graph, but the selectors choose only one of them. Choose both, remove the graph break "
                        "(fullgraph=True shows it), or compile transform(model, ...)."
                    )


def backend(
    gm: fx.GraphModule, example_inputs: list[Any], *, options: Mapping[str, Any] | None = None, **settings: Any
) -> Callable[..., Any]:
    """The backend by name. ``options`` holds the settings of ``Backend``; what is left goes to Inductor.

    Each graph is judged by itself, if it is the whole of what Dynamo compiles. Of a forward that Dynamo splits it
    sees the parts one by one: a part without effect is a warning, and selectors are refused. ``compile_model`` judges
    the parts together.

    Raises:
        PassError, SelectorError, NoEffectError.
    """
    given = {**(options or {}), **settings}
    ours = {key: given.pop(key) for key in _SETTINGS if key in given}
    if "passes" not in ours:
        raise PassError(f"the backend needs passes: {HOW_TO}.")
    one = Backend(**ours, options=given)
    split = is_split(gm)
    if split and any(key in ours for key in ("include", "exclude", "where")):
        raise SelectorError(
            "Dynamo splits this model's forward (fullgraph=True shows where), and a backend given by name sees one "
            "part at a time, where include and exclude may mean another one. Use padrewrite.compile(model, ...)."
        )
    one.rewrite(gm, example_inputs)
    for decision in one.decisions:
        if decision.code.startswith("symbolic"):
            text = f"{decision.site} is not rewritten by {decision.pass_name}: {decision.reason}. Try dynamic=False."
            warnings.warn(text, stacklevel=2)
    if one.sites:
        try:
            one.judge()
        except NoEffectError as error:
            if not split:
                raise
            text = f"in one of several graphs of this model: {error} padrewrite.compile judges all graphs together."
            warnings.warn(text, stacklevel=2)
    return one.hand_on(gm, example_inputs)


_SETTINGS = ("passes", "include", "exclude", "where", "allow_no_effect", "inner", "mode")


def compile_model(
    model: nn.Module,
    *,
    passes: Iterable[str | Pass] = (),
    include: Names = None,
    exclude: Names = None,
    where: Where = None,
    allow_no_effect: bool = False,
    backend: str | Compiler = "inductor",
    mode: str | None = None,
    options: Mapping[str, Any] | None = None,
    **torch_compile_kwargs: Any,
) -> nn.Module:
    """``torch.compile`` with the passes applied to each graph. The model itself is not changed.

    The first call compiles; after it, a selector that matched nothing or a pass without effect is an error, over all
    graphs that call was compiled to. Convolutions that ran outside any graph are reported as ``not-compiled``.

    Args:
        passes, include, exclude, where, allow_no_effect: as for ``plan``.
        backend: what compiles the rewritten graph.
        mode, options, others: as for ``torch.compile``.

    Raises:
        ModelError, PassError. The first call: SelectorError, NoEffectError.
    """
    one = Backend(
        passes,
        include=include,
        exclude=exclude,
        where=where,
        allow_no_effect=allow_no_effect,
        inner=backend,
        mode=mode,
        options=options,
        model=check_model(model),
    )
    compiled: Any = torch.compile(model, backend=one, **torch_compile_kwargs)
    if compiled is not model and not torch_compile_kwargs.get("disable"):
        # Setting an attribute would set it on the model itself.
        vars(compiled)["_padrewrite_backend"] = one
        _JudgeAfterFirstCall(compiled, one)
    return compiled


class _JudgeAfterFirstCall:
    """A forward hook on the compiled wrapper, outside what is compiled; it removes itself when all is well."""

    def __init__(self, compiled: nn.Module, one: Backend) -> None:
        self._backend = one
        self._handle = compiled.register_forward_hook(self)

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if not torch.compiler.is_compiling():
            self._backend.judge()
            self._handle.remove()


def _listed(names: Names) -> list[str]:
    return [] if names is None else [names] if isinstance(names, str) else list(names)
