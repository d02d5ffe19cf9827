"""Output stride on the feature extractors of the zoo: writes docs/output-stride.md.

``make grids``, or ``PYTHONPATH=tests python -m zoo.grids`` with options. Old and new extractor run side by side in
float64. After every convolution layer that is promised a grid, and at the end, the old values must stand in the new
ones at all positions: seen by forward hooks and slices, none of it the engine's. Results are kept in ``.zoo-cache``
until a source changes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, cast

import torch
from joblib import Parallel, delayed
from torch import Tensor, nn

import padrewrite as pr
from padrewrite.pipeline import plan_recorded
from padrewrite.recording.inputs import Inputs
from padrewrite.registry import parse_passes

from .extractors import EXTRACTORS, Extractor, image
from .sweeping.cache import FOLDER, ROOT, state_of_sources
from .sweeping.coverage import bound, counted, table
from .sweeping.measuring import scrubbed

STRIDES = (16, 8)
ALLOWED = 1e-10
"""Largest absolute error."""
OUTPUT = "(output 0)"

HEAD = """# Output stride on real feature extractors

Written by `make zoo`, not by hand. Each extractor is a classifier of pytorchcv without its global pool and its layer of
fixed size, with random weights and batch norms fitted to them, in eval mode and float64. `output-stride` is planned at
the first size and run at all of them. After every convolution layer that is promised `grid(f)`, and at the end of the
extractor, `new[..., ::f, ::f]` is compared with `old`, every position of it, borders included; an error of 1e-10 fails.

A column reads *convolutions + pools* changed, in brackets the number of places compared, then the largest absolute
error of them at all sizes, rounded up to a power of ten, and *ends* where the grid does not reach the end.
"""


@dataclass(frozen=True)
class GridRow:
    """One extractor at one output stride."""

    name: str
    stride: int
    convs: int = 0
    pools: int = 0
    compared: int = 0
    """Places, the end of the extractor among them; each at every size."""
    worst: float | None = None
    code: str = ""
    """Why nothing was changed."""
    reason: str = ""
    ended: tuple[str, ...] = ()
    reached: bool = False
    """The end of the extractor is promised."""
    failure: str = ""

    @property
    def ok(self) -> bool:
        return not self.failure and (self.worst is None or self.worst <= ALLOWED)


def measure(one: Extractor) -> list[GridRow]:
    """A row for each output stride. Raises nothing: what fails is in the row."""
    rows: list[GridRow] = []
    try:
        model, inputs = one.build().double(), [image(*size) for size in one.sizes]
        graph = pr.record(model, example_inputs=inputs[0])
        for stride in STRIDES:
            rows.append(_measured(one, model, graph, stride, inputs))
    except Exception as error:
        why = scrubbed(f"{type(error).__name__}: {error}")
        rows += [GridRow(one.name, stride, failure=why) for stride in STRIDES[len(rows) :]]
    return rows


def _measured(one: Extractor, model: nn.Module, graph: pr.Graph, stride: int, inputs: Sequence[Tensor]) -> GridRow:
    passes = parse_passes([f"output-stride{{stride={stride}}}"])
    plan = plan_recorded(model, graph, passes, Inputs.of(inputs[0]), allow_no_effect=True)
    if not plan.edits:
        refused = next((d for d in plan.decisions if d.code != "no-match"), plan.decisions[0])
        return GridRow(one.name, stride, code=refused.code, reason=scrubbed(refused.reason))
    new, (stage,) = pr.apply(model, plan), plan.grids
    convs = sum("in_channels" in d.before for d in plan.decisions if d.status == "rewritten")
    pools = sum(d.status == "rewritten" for d in plan.decisions) - convs
    worst, compared = 0.0, set[str]()
    for x in inputs:
        old, fine = outputs(model, x), outputs(new, x)
        if not old[OUTPUT].std((2, 3)).max() > 1e-6:
            return GridRow(one.name, stride, failure=f"at {tuple(x.shape[2:])} no signal is left to compare")
        for name, steps in stage.factors.items():
            if name in old:
                compared.add(name)
                worst = max(worst, distance(old[name], fine[name], steps))
    reached = OUTPUT in stage.factors
    found = worst if compared else None
    return GridRow(one.name, stride, convs, pools, len(compared), found, "", "", stage.ended, reached)


def outputs(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """What every convolution layer gives, and the end."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda _module, _args, result: seen.__setitem__(name, result)

    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    hooks = [layer.register_forward_hook(keep(name)) for name, layer in layers]
    with torch.no_grad():
        end = model(x)
    for hook in hooks:
        hook.remove()
    return {**seen, OUTPUT: end}


def distance(old: Tensor, new: Tensor, steps: Sequence[int]) -> float:
    """The largest difference on the grid; infinite if that has another number of positions."""
    on_grid = new[(..., *(slice(None, None, step) for step in steps))]
    return (on_grid - old).abs().max().item() if on_grid.shape == old.shape else float("inf")


def page(rows: Sequence[GridRow]) -> str:
    """The page as Markdown."""
    names = list(dict.fromkeys(row.name for row in rows))
    of = {(row.name, row.stride): row for row in rows}
    lines = [_line(one, [of[one.name, stride] for stride in STRIDES]) for one in EXTRACTORS if one.name in names]
    head = ["network", "family", "input sizes", *(f"to {stride}" for stride in STRIDES)]
    sections = [HEAD, *totals(rows), "", table(head, lines)]
    sections += ["\n## Not changed, or failed\n", _reasons([(r.code, r.reason or r.failure, r.name) for r in rows])]
    sections += ["\n## Where the grid ends\n", _reasons([("", end, r.name) for r in rows for end in r.ended])]
    return "\n".join(sections) + "\n"


def totals(rows: Sequence[GridRow]) -> list[str]:
    done = [row for row in rows if row.convs + row.pools]
    worst = max((row.worst or 0.0 for row in done), default=0.0)
    fine = [row for row in rows if row.code == "already-fine"]
    refused = [row for row in rows if row.code and row.code != "already-fine"]
    return [
        f"* {len({row.name for row in rows})} extractors, each at output strides {' and '.join(map(str, STRIDES))}",
        f"* {len(done)} rewritten, to their end {sum(row.reached for row in done)}; largest error {bound(worst)}",
        f"* {len(fine)} already as fine, {len(refused)} refused, {sum(not row.ok for row in rows)} failed",
    ]


def _line(one: Extractor, rows: Sequence[GridRow]) -> list[str]:
    sizes = ", ".join(f"{h}x{w}" for h, w in one.sizes)
    return [one.name, one.family, sizes, *map(_cell, rows)]


def _cell(row: GridRow) -> str:
    if row.failure:
        return "failed"
    if row.code:
        return f"`{row.code}`"
    return f"{row.convs} + {row.pools} ({row.compared}): {bound(row.worst)}" + ("" if row.reached else ", ends")


def _reasons(found: Sequence[tuple[str, str, str]]) -> str:
    given = dict.fromkeys((code, why) for code, why, _ in found if why)
    lines = [
        [*([f"`{code}`"] if code else []), why, counted({n for c, w, n in found if (c, w) == (code, why)})]
        for code, why in sorted(given)
    ]
    head = ["code", "why", "networks"][-max(map(len, lines), default=2) :]
    return table(head, lines) if lines else "Nothing."


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. 0: everything held; 1: something failed; 2: nothing matches --only."""
    parser = argparse.ArgumentParser(prog="zoo.grids", description="Output stride on real feature extractors.")
    parser.add_argument("--only", metavar="GLOB", default="*", help="networks by name; the page needs all of them")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="networks at a time, one thread each")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where the page is written")
    options = parser.parse_args(arguments)
    chosen = [one for one in EXTRACTORS if fnmatch(one.name, options.only)]
    if not chosen:
        print(f"no extractor is called {options.only!r}; there are {len(EXTRACTORS)}, as {EXTRACTORS[0].name}")
        return 2
    rows: list[GridRow] = []
    state = state_of_sources() + hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    work = (delayed(_by_name)(one.name, state) for one in chosen)
    for found in cast(Any, Parallel)(n_jobs=options.jobs, return_as="generator")(work):
        rows += found
        for row in found:
            print(f"{row.name} to {row.stride}: {row.failure or row.reason or _cell(row)}", flush=True)
    print("\n".join(totals(rows)))
    if len(chosen) == len(EXTRACTORS):
        (options.docs / "output-stride.md").write_text(page(rows), encoding="utf-8")
    return 0 if all(row.ok for row in rows) else 1


def _by_name(name: str, state: str) -> list[GridRow]:
    """``measure`` for a process of its own, to which functions cannot be sent; or what is kept of it."""
    torch.set_num_threads(1)
    one = next(one for one in EXTRACTORS if one.name == name)
    kept, key = FOLDER / f"{name}.grids.json", [state, *map(list, one.sizes)]
    if kept.exists() and (found := json.loads(kept.read_text(encoding="utf-8")))["key"] == key:
        return [GridRow(**{**row, "ended": tuple(row["ended"])}) for row in found["rows"]]
    rows = measure(one)
    FOLDER.mkdir(exist_ok=True)
    kept.write_text(json.dumps({"key": key, "rows": [asdict(row) for row in rows]}), encoding="utf-8")
    return rows


if __name__ == "__main__":
    sys.exit(main())
