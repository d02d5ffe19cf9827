"""``padrewrite fuzz``: one random network looked at closely, or many counted."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Console, RenderableType
from rich.progress import Progress
from rich.text import Text

from padrewrite.cli.printing import say, show, show_json
from padrewrite.fuzzing.checking import check_network, check_spec, default_passes
from padrewrite.fuzzing.networks import NetSpec
from padrewrite.fuzzing.results import Outcome, Result, results_json
from padrewrite.fuzzing.shrinking import shrink
from padrewrite.fuzzing.sweeping import can_share_out, sweep
from padrewrite.registry import parse_passes
from padrewrite.reporting.layout import Cell, clean, grid

_STYLES = {"held": "green", "failed": "bold red", "skipped": "dim"}


def fuzz(args: Namespace, violated: int, unrecorded: int) -> int:
    """Checks the networks of ``args`` and shows what came of it; the exit code, of those given the fitting one."""
    passes = args.passes or default_passes()
    for one in passes:  # a wrong name is an error of usage, not of every network
        parse_passes([one])
    results = [check_network(args.seed, passes)] if args.count is None else _sweep(args, passes)
    if args.json:
        show_json(results_json(results, passes))
    elif args.count is None:
        _show_network(results[0], results[0].outcomes)
    else:
        show(lambda width: _summary(results, width))
    failed = [result for result in results if not result.ok]
    for result in failed:
        _show_failure(args, result, passes)
    if any(result.recorded for result in failed):
        return violated
    return unrecorded if failed else 0


def reproduction(seed: int, passes: Sequence[str]) -> str:
    """The command line that checks one network again."""
    options = "".join(f" -p '{name}'" for name in passes) if list(passes) != default_passes() else ""
    return f"padrewrite fuzz --seed {seed}{options}"


def _sweep(args: Namespace, passes: Sequence[str]) -> list[Result]:
    seeds = range(args.start, args.start + args.count)
    if args.jobs > 1 and not can_share_out():
        say("joblib is not installed (pip install 'padrewrite[sweep]'): one network after the other.")
    console = Console(stderr=True)
    found: list[Result] = []
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"seeds {seeds[0]} to {seeds[-1]}", total=len(seeds))
        for result in sweep(seeds, passes, args.jobs):
            found.append(result)
            failures = sum(not r.ok for r in found)
            progress.update(task, advance=1, description=f"seed {result.seed}, {failures} failed")
            if not result.ok:  # at once: what follows may take hours
                progress.console.print(f"seed {result.seed} FAILED: {', '.join(o.check for o in result.failures)}")
    return found


def _show_network(result: Result, outcomes: Sequence[Outcome]) -> None:
    show(lambda width: [Text(_heading(result), style="bold", overflow="fold")])
    print(result.spec)  # as it is: a line that is broken anew is no Python
    if result.refused is not None:
        print(f"\ntorch refuses it, so there is nothing to check: {clean(result.refused)}")
    if outcomes:
        show(lambda width: [Text(), _outcomes(outcomes, width)])


def _heading(result: Result) -> str:
    spec = result.spec
    name = "a smaller network" if result.seed is None else f"seed {result.seed}"
    drawn = f", drawn as {', '.join(spec.drawn)}" if spec.drawn else ""
    return f"{name}: {spec.rank}-D, {len(spec.steps)} steps, {result.convolutions} convolutions{drawn}"


def _outcomes(outcomes: Sequence[Outcome], width: int) -> RenderableType:
    rows: list[tuple[Cell, ...]] = [
        (Text(o.status, style=_STYLES[o.status]), o.check, o.note.splitlines()[0] if o.note else "") for o in outcomes
    ]
    return grid(rows, width, least=(0, 20, 20), fold=(2,))


def _summary(results: Sequence[Result], width: int) -> Iterator[RenderableType]:
    how = Counter(result.how for result in results if result.how)
    convolutions = sum(result.convolutions for result in results)
    recorded = ", ".join(f"{count} {name}" for name, count in sorted(how.items()))
    yield Text(
        f"{len(results)} networks (seeds {results[0].seed} to {results[-1].seed}), {convolutions} convolutions, "
        f"recorded: {recorded or 'none'}",
        style="bold",
        overflow="fold",
    )
    counts: dict[str, Counter[str]] = {}
    for result in results:
        for outcome in result.outcomes:
            counts.setdefault(outcome.check, Counter())[outcome.status] += 1
    columns = ("held", "skipped", "failed")
    rows: list[tuple[Cell, ...]] = [tuple(Text(c, style="bold") for c in ("check", *columns))]
    rows += [(check, *(str(count[c]) for c in columns)) for check, count in counts.items()]
    yield grid(rows, width, least=(20, 0, 0, 0), right=(1, 2, 3))
    refused = [str(result.seed) for result in results if result.refused is not None]
    if refused:
        yield Text(f"refused by torch itself: seeds {', '.join(refused)}", overflow="fold")


def _show_failure(args: Namespace, result: Result, passes: Sequence[str]) -> None:
    """The network and what failed, to standard error if standard output is JSON's."""
    tell = say if args.json else print
    if args.count is not None and not args.json:
        print()
        _show_network(result, result.failures)
    for failure in result.failures:
        where = f" ({failure.where})" if failure.where else ""
        tell(f"\nFAILED seed {result.seed}, {failure.check}{where}\n{failure.note}")
        if args.traceback and failure.trace:
            tell(failure.trace)
    if args.shrink:
        small = shrink(result, lambda spec: _check_quietly(spec, passes))
        tell(f"\nsmallest network found on which it fails too:\n{small.spec}\n{small.failures[0].note}")
    tell(f"\nagain: {reproduction(result.seed or 0, passes)}")


def _check_quietly(spec: NetSpec, passes: Sequence[str]) -> Result:
    return check_spec(spec, passes)
