"""What each command does: load, call the public function, show, and say how it went by the exit code."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import padrewrite as pr
from padrewrite.cli import analysing, catalogue, explaining
from padrewrite.cli.loading import load_checkpoint, load_model, make_inputs, save_model
from padrewrite.cli.printing import say, show, show_json
from padrewrite.errors import InputsError, PadrewriteError, PlanError
from padrewrite.plans import Decision
from padrewrite.reporting.evidence import verification_parts
from padrewrite.reporting.reports import Report
from padrewrite.reporting.text import heading, plan_parts, report_parts

OK, FINDINGS, USAGE, VIOLATED, UNRECORDED = range(5)
INTERNAL = 70
"""Exit codes; the last one is EX_SOFTWARE of sysexits.h."""


def run_analyze(args: Namespace) -> int:
    model, inputs = _load(args)
    found = pr.analyze(model, example_inputs=inputs)
    for path, text in analysing.files(args, found, model):
        _write(path, text)
    analysing.show_analysis(args, found)
    return _findings(args, analysing.warnings(found))


def run_plan(args: Namespace) -> int:
    model, inputs = _load(args)
    made = pr.plan(model, args.passes, example_inputs=inputs, **_selectors(args))
    if args.output:
        _write(args.output, made.to_json())
    if args.json:
        print(made.to_json())
    else:
        show(lambda width: plan_parts(made, width, args.full))
    return _findings(args, _refused(made.decisions))


def run_apply(args: Namespace) -> int:
    model, inputs = _load(args)
    if args.plan:
        report, new = _apply_saved(args, model)
    else:
        options = {**_selectors(args), "verify": args.verify}
        new = pr.transform(model, args.passes, example_inputs=inputs, **options)
        report = pr.report(new)
    ok = report.verification is None or report.verification.ok
    if ok and args.output:
        save_model(new, args.output)  # before anything is printed: the reader of a pipe may leave
    _show_report(args, report)
    if not ok:
        say("Nothing was saved: a contract is violated.")
        return VIOLATED
    if args.output:
        say(_saved(args.output, new, same_keys=list(new.state_dict()) == list(model.state_dict())))
    else:
        say("Nothing was saved: give -o FILE.")
    return _findings(args, _refused(report.decisions))


def _apply_saved(args: Namespace, model: nn.Module) -> tuple[Report, nn.Module]:
    if args.include or args.exclude or args.inputs:
        raise PlanError(
            "a saved plan has its inputs and its choice of convolutions already: leave out --input, --include "
            "and --exclude, or make the plan again with them."
        )
    new = pr.apply(model, pr.Plan.load(args.plan))
    checked = None
    if args.verify != "off":
        checked = pr.verify(new, original=model, level=args.verify, seed=args.seed)
    return replace(pr.report(new), verification=checked), new


def run_verify(args: Namespace) -> int:
    model, inputs = _load(args)
    new = pr.transform(model, args.passes, example_inputs=inputs, verify="off", **_selectors(args))
    options = {"level": args.level, "trials": args.trials, "seed": args.seed}
    found = pr.verify(new, original=model, example_inputs=inputs, **options)
    report = pr.report(new)
    if args.output:
        _write(args.output, report.to_json())
    if args.json:
        print(report.to_json())
    else:
        show(lambda width: [*heading(report.plans[-1], width), "", *verification_parts(found, width)])
    if not found.ok:
        return VIOLATED
    return _findings(args, [*_refused(report.decisions), *(e for e in found.evidence if e.vacuous)])


def run_explain(args: Namespace) -> int:
    model, inputs = _load(args)
    made = None
    if args.passes:
        options: dict[str, Any] = {**_selectors(args), "allow_no_effect": True}
        made = pr.plan(model, args.passes, example_inputs=inputs, **options)
    graph = made.graph if made is not None and made.graph is not None else pr.record(model, example_inputs=inputs)
    site = explaining.find_site(graph, args.site)
    if args.json:
        show_json(explaining.explanation_json(site, made))
    else:
        show(lambda width: explaining.explanation_parts(site, made, width))
    return OK


def run_passes(args: Namespace) -> int:
    found = catalogue.cards(args.names)
    if args.json:
        show_json(catalogue.catalogue_json(found))
    else:
        show(lambda width: catalogue.catalogue_parts(found, width))
    return OK


def run_bench(args: Namespace) -> int:
    from padrewrite.benchmarking import run_bench as measure

    if args.symmetric:
        return _bench_symmetric(args)
    if args.model is None or not args.passes or args.tune:
        raise InputsError("bench wants a MODEL and -p PASS, or --symmetric CxN (and then perhaps --tune FILE).")
    model, inputs = _load(args)
    if inputs is None:
        raise InputsError("bench runs the model: give --input, as in --input 1x3x224x224.")
    new = pr.transform(model, args.passes, example_inputs=inputs, **_selectors(args))
    given = {"modes": args.mode, "phases": args.phase, "dtype": args.dtype and getattr(torch, args.dtype)}
    numbers = {"rounds": args.rounds, "warmup": args.warmup, "threads": args.threads}
    options = {**{k: v for k, v in given.items() if v}, **numbers}
    measured = measure(model, new, inputs, device=args.device, channels_last=args.channels_last, **options)
    if args.output:
        _write(args.output, measured.to_json(raw=True))
    if args.json:
        print(measured.to_json())
    else:
        show(lambda width: [measured])
    return OK


def _bench_symmetric(args: Namespace) -> int:
    from padrewrite.benchmarking.symmetric import bench_symmetric
    from padrewrite.ops.formulations import merged, read_table, table_json

    known = Path(args.tune) if args.tune else None
    table = read_table(known.read_text(encoding="utf-8"), args.tune) if known is not None and known.exists() else ()
    numbers = {"rounds": args.rounds, "warmup": args.warmup, "threads": args.threads, "device": args.device}
    measured = bench_symmetric(args.symmetric, channels_last=args.channels_last, **numbers)
    if args.tune:
        _write(args.tune, table_json(merged(table, measured.rows())))
    if args.output:
        _write(args.output, measured.to_json())
    if args.json:
        print(measured.to_json())
    else:
        show(lambda width: [measured])
    return OK


def run_demo(args: Namespace) -> int:
    from padrewrite.cli.demo import demonstrate

    demonstrate(args.size, args.seed, Path(args.output))
    return OK


def run_fuzz(args: Namespace) -> int:
    from padrewrite.cli.fuzzing import fuzz

    return fuzz(args, VIOLATED, UNRECORDED)


COMMANDS: dict[str, Callable[[Namespace], int]] = {
    "analyze": run_analyze,
    "plan": run_plan,
    "apply": run_apply,
    "verify": run_verify,
    "explain": run_explain,
    "passes": run_passes,
    "bench": run_bench,
    "fuzz": run_fuzz,
    "demo": run_demo,
}


def _load(args: Namespace) -> tuple[nn.Module, tuple[Tensor, ...] | None]:
    model = load_model(args.model, args.kwargs, args.seed, args.train)
    if getattr(args, "checkpoint", None):
        load_checkpoint(model, args.checkpoint)
    return model, make_inputs(args.inputs, args.seed)


def _selectors(args: Namespace) -> dict[str, Any]:
    return {"include": args.include, "exclude": args.exclude, "allow_no_effect": args.allow_no_effect}


def _show_report(args: Namespace, report: Report) -> None:
    if args.json:
        print(report.to_json())
    else:
        show(lambda width: report_parts(report, width, args.full))


def _refused(decisions: Iterable[Decision]) -> list[Decision]:
    return [d for d in decisions if d.status == "refused"]


def _findings(args: Namespace, found: Sequence[object]) -> int:
    return FINDINGS if args.strict and found else OK


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise PadrewriteError(f"{path} was not written: {error}") from error


def _saved(path: str, new: nn.Module, same_keys: bool) -> str:
    keys = "the original's keys" if same_keys else "keys of its own, for the layers that have new parameters"
    return (
        f"Saved {path}: the whole model. Read it with torch.load({path!r}, weights_only=False) where "
        f"padrewrite and {type(new).__module__.partition('.')[0]} can be imported. Its state_dict has {keys}; "
        "checkpoints of the original load into it."
    )
