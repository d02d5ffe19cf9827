"""The command line ``padrewrite``: analyze, plan, apply, verify, explain, passes, bench, fuzz, demo."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from io import TextIOWrapper

from padrewrite.cli.commands import COMMANDS, INTERNAL, UNRECORDED, USAGE, VIOLATED
from padrewrite.cli.parsing import make_parser
from padrewrite.cli.printing import say
from padrewrite.errors import ContractViolation, PadrewriteError, RecordError, SiteMismatch, WriteError

__all__ = ["main"]

_EXIT_CODES: dict[type[PadrewriteError], int] = {
    RecordError: UNRECORDED,
    ContractViolation: VIOLATED,
    WriteError: VIOLATED,
    SiteMismatch: VIOLATED,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; an error is one message on standard error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a pipe may not take the characters of a module's name
            stream.reconfigure(errors="backslashreplace")
    try:
        args = make_parser().parse_args(argv)
    except SystemExit as stop:  # argparse has printed what was wrong, or the help
        return stop.code if isinstance(stop.code, int) else USAGE
    try:
        code = COMMANDS[args.command](args)
        sys.stdout.flush()
        return code
    except PadrewriteError as error:
        if args.traceback:
            traceback.print_exc()
        say(f"{type(error).__name__}: {error}")
        return next((code for kind, code in _EXIT_CODES.items() if isinstance(error, kind)), USAGE)
    except BrokenPipeError:  # the reader has seen enough, as in `padrewrite passes | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # uncaught, Python would exit with 1, which says that there are findings
        traceback.print_exc()
        say(f"internal error, please report it: {type(error).__name__}: {error}")
        return INTERNAL
