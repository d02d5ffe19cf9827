"""All analyses of one recorded model, made once and asked by records and findings alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import torch.fx as fx

from padrewrite.analyses.border import Borders, Clean
from padrewrite.analyses.causality import Causality
from padrewrite.analyses.chains import Chain, find_chains
from padrewrite.analyses.fields import Fields, SharedFields
from padrewrite.analyses.layout import Axis, Layout, Lost, Origin, read_layout
from padrewrite.analyses.meeting import read_as_a_whole, with_all_inputs
from padrewrite.analyses.naming import named
from padrewrite.analyses.paths import Paths
from padrewrite.analyses.phases import Phases
from padrewrite.analyses.requirements import Requirement, requirements, runs
from padrewrite.analyses.sizes import Sizes
from padrewrite.analyses.support import Supports
from padrewrite.analyses.usage import AxisUse, use_of, valid_weights
from padrewrite.analyses.waste import wasted
from padrewrite.graph import Graph, Site
from padrewrite.ops.axis import Slide
from padrewrite.ops.conv import Conv
from padrewrite.ops.following import axis_of
from padrewrite.ops.step import shape_of


@dataclass(frozen=True)
class Scene:
    """A recorded model and everything that is known of its positions."""

    graph: Graph

    @cached_property
    def layout(self) -> Layout:
        return read_layout(self.graph)

    @cached_property
    def nodes(self) -> list[fx.Node]:
        """The call of every site."""
        return list(self.layout.sites.values())

    @cached_property
    def names(self) -> dict[fx.Node, str]:
        """The id of every call and input."""
        return named(self.graph, self.layout)

    @cached_property
    def phases(self) -> Phases:
        return Phases(self.layout)

    @cached_property
    def causality(self) -> Causality:
        return Causality(self.layout)

    @cached_property
    def fields(self) -> Fields:
        return Fields(self.layout)

    @cached_property
    def shared_fields(self) -> SharedFields:
        return SharedFields(self.layout)

    @cached_property
    def sizes(self) -> Sizes:
        return Sizes(self.layout)

    @cached_property
    def requirements(self) -> tuple[Requirement, ...]:
        """What the sizes must fulfil along the input dimensions that some convolution slides over."""
        return tuple(need for need in requirements(self.layout, self.sizes) if need.axis in self.tracked)

    def runs(self, sizes: Mapping[Origin, int]) -> bool | None:
        """Whether the model takes inputs of these sizes; None if that cannot be tried."""
        return runs(self.graph, self.layout.inputs, sizes)

    @cached_property
    def paths(self) -> Paths:
        return Paths(self.graph.conditions)

    @cached_property
    def tracked(self) -> tuple[Origin, ...]:
        """The input dimensions that some convolution slides over."""
        axes = (self.layout.axes[self.node(site)][d] for site in self.graph.convs() for d in self.dims(site))
        return tuple(dict.fromkeys(axis for axis in axes if isinstance(axis, Origin)))

    @cached_property
    def supports(self) -> Supports:
        return Supports(*self._all_inputs, self.nodes)

    @cached_property
    def _all_inputs(self) -> tuple[Layout, tuple[Origin, ...]]:
        """Supports are about all inputs."""
        return with_all_inputs(self.graph, self.layout, self.tracked)

    @cached_property
    def wholes(self) -> set[fx.Node]:
        """Calls that all of some input reaches that supports do not follow."""
        return read_as_a_whole(self.graph, *self._all_inputs)

    @cached_property
    def borders(self) -> Borders:
        return Borders(self.layout, self.nodes)

    @cached_property
    def partial_borders(self) -> Borders:
        return Borders(self.layout, self.nodes, "mean")

    @cached_property
    def clean(self) -> Clean:
        return Clean(self.layout)

    @cached_property
    def chains(self) -> tuple[Chain, ...]:
        return find_chains(self.layout)

    @cached_property
    def waste(self) -> dict[fx.Node, Fraction]:
        return dict(wasted(self.layout))

    def node(self, site: Site) -> fx.Node:
        return self.layout.sites[site.id]

    def dims(self, site: Site) -> range:
        """The spatial dimensions of a site's output."""
        rank = len(shape_of(self.node(site)))
        return range(rank - site.op.window.rank, rank)

    def axes(self, site: Site) -> tuple[Axis, ...]:
        """What its spatial dimensions carry."""
        return tuple(self.layout.axes[self.node(site)][d] for d in self.dims(site))

    def sizes_in(self, site: Site) -> tuple[int, ...] | None:
        """Sizes of what the site reads along its spatial axes, before explicit pads."""
        return site.input_shape[-site.op.window.rank :] if site.input_shape else None

    def uses(self, site: Site) -> tuple[AxisUse, ...] | None:
        """How its taps meet its input; None for transposed convolutions."""
        sizes = self.sizes_in(site)
        windows = [axis_of(site.op, a) for a in range(site.op.window.rank)]
        slides = [w for w in windows if isinstance(w, Slide)]
        if sizes is None or len(slides) < len(windows):
            return None
        return tuple(use_of(window, n) for window, n in zip(slides, sizes))

    def valid(self, site: Site) -> Fraction | None:
        """Share of its weights that multiply real input, over all outputs; None for transposed convolutions."""
        sizes = self.sizes_in(site)
        return None if sizes is None or not isinstance(site.op, Conv) else valid_weights(site.op, sizes)

    @cached_property
    def _losing(self) -> dict[str, fx.Node]:
        """The first call that loses positions for a reason."""
        found = [*self.layout.axes.items(), *self._all_inputs[0].axes.items()]
        lost = [(axis.reason, n) for n, axes in found for axis in axes if isinstance(axis, Lost)]
        return dict(reversed(lost))

    def ended(self, site: Site) -> End | None:
        """Why the positions of a site, or of a branch that it reads, are not known."""
        node = self.node(site)
        lost = next((axis.reason for axis in self.axes(site) if isinstance(axis, Lost)), None)
        if lost is None and any(axis is None for axis in self.axes(site)):
            return self._mixed(site) or End(BEHIND_POOL)
        reason = lost or self.supports.of(node).unknown
        if reason is not None:
            return End(reason, self._losing.get(reason))
        at = next((self.phases.ends[node, d] for d in self.dims(site) if (node, d) in self.phases.ends), None)
        return None if at is None else End(f"{self.layout.steps[at].name} gives one position to all of an axis", at)

    @cached_property
    def _mixing(self) -> list[fx.Node]:
        return [node for node in self.layout.steps if self.layout.mixes(node)]

    def _mixed(self, site: Site) -> End | None:
        """The last call before ``site`` that made features of positions, where its window slides over some again."""
        sizes = self.sizes_in(site)
        if not self._mixing or sizes is None or all(n == 1 for n, axis in zip(sizes, self.axes(site)) if axis is None):
            return None
        before = self.layout.before([self.node(site)])
        at = next((node for node in reversed(self._mixing) if node in before), None)
        return at and End(f"{self.layout.steps[at].name} makes features of all positions along a dimension", at)


@dataclass(frozen=True)
class End:
    """Where spatial reasoning ended."""

    reason: str
    at: fx.Node | None = None
    """The call, where there is one."""


BEHIND_POOL = "it reads nothing that has a position of an input: a global pool, a constant or a linear layer"


def place(node: fx.Node, scene: Scene) -> str:
    """The name of a call or input: its site id, its pool's id, or module, function and number."""
    return scene.names[node]
