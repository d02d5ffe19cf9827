"""Runs the zoo: every network of the catalogue through every step, and writes docs/coverage.md and zoo-findings.md.

``make zoo``, or ``PYTHONPATH=tests python -m zoo.sweep`` with options. Results are kept in ``.zoo-cache``; a second
run measures only what is missing or was measured with other sources. A network that fails is a row of the pages, and
one that was not reached is named there: ``--minutes`` ends a run that takes too long.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, cast

from joblib import Parallel, delayed
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .catalogue import ENTRIES, Entry
from .sweeping.cache import FOLDER, ROOT, Cache, state_of_sources
from .sweeping.coverage import coverage_page, totals
from .sweeping.findings_page import findings_page
from .sweeping.rows import Row
from .sweeping.worker import Interrupted, run_apart

LIMIT = 240.0
"""Seconds of processor time for one network."""

Measure = Callable[[Entry, float], Row]


def sweep(
    entries: Sequence[Entry],
    cache: Cache,
    *,
    jobs: int = 1,
    limit: float = LIMIT,
    fresh: bool = False,
    minutes: float | None = None,
    measure: Measure = run_apart,
    console: Console | None = None,
) -> list[str]:
    """Measures and keeps whatever of ``entries`` has no result; the names of those measured, as they came in.

    No network is begun later than ``minutes`` after the start.
    """
    todo = list(entries) if fresh else cache.missing(entries)
    done: list[str] = []
    columns = (TextColumn("{task.description:32.32}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console or Console(stderr=True)) as progress:
        bar = progress.add_task("zoo", total=len(entries), completed=len(entries) - len(todo))
        for entry, row in _measured(_in_time(todo, minutes), jobs, limit, measure):
            cache.store(entry, row)
            done.append(entry.name)
            progress.update(bar, advance=1, description=entry.name)
            for failure in row.failures:
                progress.console.print(
                    f"{row.name}: {failure.step}: {failure.error}: {failure.message}",
                    markup=False,
                    highlight=False,
                )
    return done


def _in_time(todo: Iterable[Entry], minutes: float | None) -> Iterator[Entry]:
    """Entries until the time is up."""
    end = None if minutes is None else time.monotonic() + 60 * minutes
    for entry in todo:
        if end is not None and time.monotonic() >= end:
            return
        yield entry


def _measured(
    todo: Iterable[Entry], jobs: int, limit: float, measure: Measure
) -> Iterator[tuple[Entry, Row]]:
    """Results as they come in. The threads only wait: each network has a process of its own."""

    def one(entry: Entry) -> tuple[Entry, Row | None]:
        try:
            return entry, measure(entry, limit)
        except Interrupted:
            return entry, None

    results: Iterator[tuple[Entry, Row | None]] = cast(Any, Parallel)(
        n_jobs=jobs, prefer="threads", return_as="generator_unordered", pre_dispatch=jobs
    )(delayed(one)(entry) for entry in todo)
    for entry, row in results:
        if row is not None:
            yield entry, row


def write_pages(entries: Sequence[Entry], cache: Cache, docs: Path) -> list[str]:
    """Writes both pages from what there is; the names of the networks without a result, which the pages give too."""
    rows = {entry.name: cache.load(entry) for entry in entries}
    found = [row for row in rows.values() if row is not None]
    missing = sorted(name for name, row in rows.items() if row is None)
    if found:
        (docs / "coverage.md").write_text(coverage_page(found, missing, cache.state), encoding="utf-8")
        (docs / "zoo-findings.md").write_text(findings_page(found), encoding="utf-8")
    return missing


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. 0: all of the catalogue is measured; 1: not all of it; 2: nothing matches --only."""
    options = _parser().parse_args(arguments)
    chosen = [entry for entry in ENTRIES if fnmatch(entry.name, options.only)]
    if not chosen:
        print(f"no network is called {options.only!r}; there are {len(ENTRIES)}, as {ENTRIES[0].name}")
        return 2
    cache = Cache(options.cache)
    limits = {"jobs": options.jobs, "limit": options.limit, "minutes": options.minutes}
    sweep(chosen, cache, fresh=options.fresh, **limits)
    for line in totals([row for e in chosen if (row := cache.load(e))]):
        print(line)
    if state_of_sources() != cache.state:
        print("The sources changed meanwhile, and the pages are as they were. Run it again.")
        return 1
    missing = write_pages(ENTRIES, cache, options.docs)
    if missing:
        print(f"The pages are without {len(missing)} networks, which have no result for these sources.")
    return 1 if missing else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="zoo.sweep", description="Runs padrewrite on a collection of real networks."
    )
    parser.add_argument(
        "--only", metavar="GLOB", default="*", help="only these networks, by name"
    )
    parser.add_argument("--fresh", action="store_true", help="measure again what has a result")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="networks at a time, one thread each")
    parser.add_argument(
        "--limit", type=float, default=LIMIT, help="seconds of processor time for one network"
    )
    parser.add_argument("--minutes", type=float, help="begin no network later than this")
    parser.add_argument("--cache", type=Path, default=FOLDER, help="where results are kept")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where the pages are written")
    return parser


if __name__ == "__main__":
    sys.exit(main())
