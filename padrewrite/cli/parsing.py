"""The command line's grammar."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter, _SubParsersAction
from collections.abc import Callable
from typing import Any

from padrewrite import __about__
from padrewrite.cli.loading import DTYPES, parse_input, parse_kwargs

_EPILOG = """\
A model is package.module:callable, called with --kwargs; its random weights are those of --seed.
Without --input the convolutions are read off the module tree, and only passes that need no more can run.

examples:
  padrewrite analyze pytorchcv.models.resnet:resnet10 --input 1x3x224x224
  padrewrite plan pytorchcv.models.resnet:resnet10 -p partial-padding --input 1x3x224x224
  padrewrite verify mypackage.nets:UNet --kwargs '{"depth": 4}' -p partial-padding --input 1x1x64x64
  padrewrite explain pytorchcv.models.resnet:resnet10 features.stage2.unit1.body.conv1.conv --input 1x3x224x224

exit codes: 0 ok, 1 findings (with --strict), 2 usage, selector or input error, 3 contract violated,
            4 recording failed, 70 internal error: please report it
"""
_Commands = _SubParsersAction  # what add_subparsers returns has no public name


def make_parser() -> ArgumentParser:
    parser = ArgumentParser(
        "padrewrite",
        description="Find, explain, rewrite and verify the spatial choices of every convolution of a model.",
        epilog=_EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"padrewrite {__about__.VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_analyze(commands)
    _add_plan(commands)
    _add_apply(commands)
    _add_verify(commands)
    _add_explain(commands)
    _add_passes(commands)
    _add_bench(commands)
    _add_fuzz(commands)
    _add_demo(commands)
    return parser


def _command(commands: _Commands[ArgumentParser], name: str, help: str) -> ArgumentParser:
    parser = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
    parser.add_argument("--traceback", action="store_true", help="show where an error was raised")
    return parser


def _add_analyze(commands: _Commands[ArgumentParser]) -> None:
    parser = _command(commands, "analyze", "show what is spatially true of a model, and what is wrong with it")
    _add_model(parser)
    parser.add_argument("--full", action="store_true", help="every finding, and two lines for every convolution")
    parser.add_argument("--sarif", metavar="FILE", help="save the findings as SARIF 2.1.0, for code scanning")
    _add_output(parser, "save the analysis as JSON")
    _add_strict(parser, "there is a finding of severity warning")


def _add_plan(commands: _Commands[ArgumentParser]) -> None:
    parser = _command(commands, "plan", "show what passes would do to each convolution; change nothing")
    _add_model(parser)
    _add_passes_option(parser)
    _add_selectors(parser)
    _add_table(parser, "save the plan as JSON, for apply --plan")


def _add_apply(commands: _Commands[ArgumentParser]) -> None:
    parser = _command(commands, "apply", "rewrite a model, by passes or by a saved plan, and save it")
    _add_model(parser)
    _add_checkpoint(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    _add_passes_option(what)
    what.add_argument("--plan", metavar="FILE", help="a plan that `padrewrite plan -o FILE` saved")
    _add_selectors(parser)
    parser.add_argument("--verify", choices=("off", "quick", "full"), default="quick", help="default: quick")
    _add_table(parser, "save the whole rewritten model with torch.save")


def _add_verify(commands: _Commands[ArgumentParser]) -> None:
    parser = _command(commands, "verify", "rewrite a model in memory and check every contract in float64")
    _add_model(parser)
    _add_checkpoint(parser)
    _add_passes_option(parser)
    _add_selectors(parser)
    parser.add_argument("--level", choices=("quick", "full"), default="full", help="default: full")
    parser.add_argument("--trials", type=at_least(1), default=8, help="random inputs per site (default: 8)")
    _add_output(parser, "save the report with its evidence as JSON")
    _add_strict(parser, "a convolution was refused, or a check was VACUOUS")


def _add_explain(commands: _Commands[ArgumentParser]) -> None:
    parser = _command(commands, "explain", "show one convolution in detail, and why passes did what they did")
    _add_model(parser)
    parser.add_argument("site", metavar="SITE", help="as in a plan: layer4.0.conv2, shared@1, head#conv2d.0")
    _add_passes_option(parser, required=False)
    _add_selectors(parser)
    _add_json(parser)


def _add_passes(commands: _Commands[ArgumentParser]) -> None:
    parser = _command(commands, "passes", "list the known passes with their contracts, options and codes")
    parser.add_argument("names", metavar="NAME", nargs="*", help="only these")
    _add_json(parser)


def _add_bench(commands: _Commands[ArgumentParser]) -> None:
    parser = _command(commands, "bench", "measure the rewritten model against the original")
    _add_model(parser, nargs="?")
    _add_checkpoint(parser)
    _add_passes_option(parser, required=False)
    parser.add_argument(
        "--symmetric",
        action="append",
        type=parse_case,
        metavar="CxN",
        help="instead of a model: symmetric 2x2 convolutions of C channels on NxN maps, in every formulation",
    )
    parser.add_argument("--tune", metavar="FILE", help="with --symmetric: write or extend the table of the fastest")
    _add_selectors(parser)
    parser.add_argument("--mode", action="append", choices=("eager", "compiled"), help="default: both")
    parser.add_argument("--phase", action="append", choices=("eval", "train"), help="default: both")
    parser.add_argument("--rounds", type=at_least(1), default=20, help="timed rounds (default: 20)")
    parser.add_argument("--warmup", type=at_least(0), default=3, help="untimed rounds before (default: 3)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    parser.add_argument("--dtype", choices=DTYPES[:4], help="convert parameters and inputs")
    parser.add_argument("--channels-last", action="store_true", help="use the channels-last memory format")
    parser.add_argument("--threads", type=at_least(1), help="threads of torch within an operation")
    _add_output(parser, "save the measurements as JSON")


def _add_fuzz(commands: _Commands[ArgumentParser]) -> None:
    parser = _command(commands, "fuzz", "check every promise on random networks")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seed", type=at_least(0), default=0, help="check one network and show it (default: 0)")
    which.add_argument("--count", type=at_least(1), metavar="N", help="check the networks of N seeds")
    parser.add_argument("--start", type=at_least(0), default=0, metavar="SEED", help="first of them (default: 0)")
    parser.add_argument("-j", "--jobs", type=at_least(1), default=1, help="processes; needs joblib (default: 1)")
    _add_passes_option(parser, required=False)
    parser.add_argument("--shrink", action="store_true", help="look for a smaller network that fails the same way")
    _add_json(parser)


def _add_demo(commands: _Commands[ArgumentParser]) -> None:
    parser = _command(commands, "demo", "rewrite a real segmentation network and draw its border response")
    parser.add_argument("--size", type=parse_size, default=(321, 481), help="crop, HxW (default: 321x481)")
    parser.add_argument("--seed", type=int, default=0, help="of the network's weights (default: 0)")
    parser.add_argument(
        "-o", "--output", metavar="FILE", default="padrewrite-demo.png", help="default: padrewrite-demo.png"
    )


def _add_model(parser: ArgumentParser, **options: Any) -> None:
    parser.add_argument("model", metavar="MODEL", help="package.module:callable", **options)
    parser.add_argument("--kwargs", type=parse_kwargs, default={}, metavar="JSON", help="the callable's arguments")
    parser.add_argument(
        *("-i", "--input"),
        dest="inputs",
        action="append",
        type=parse_input,
        default=[],
        metavar="SHAPE[:DTYPE]",
        help="a positional input, as in 1x3x224x224 or 1x16:int64; repeat for more",
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights and inputs (default: 0)")
    parser.add_argument("--train", action="store_true", help="train mode instead of eval mode")


def _add_checkpoint(parser: ArgumentParser) -> None:
    parser.add_argument("--checkpoint", metavar="FILE", help="a state_dict to load first, strictly")


def _add_passes_option(parser: Any, required: bool = True) -> None:
    in_group = not isinstance(parser, ArgumentParser)
    parser.add_argument(
        *("-p", "--pass"),
        dest="passes",
        action="append",
        metavar="PASS",
        help="as in partial-padding or 'padding-mode{mode=circular,axes=[-1]}'; repeat for several, in order",
        **({} if in_group else {"required": required}),
    )


def _add_selectors(parser: ArgumentParser) -> None:
    names = "glob over module names, or re:regex; repeat for more"
    parser.add_argument("--include", action="append", metavar="NAMES", help=f"only these: {names}")
    parser.add_argument("--exclude", action="append", metavar="NAMES", help=f"not these: {names}")
    parser.add_argument("--allow-no-effect", action="store_true", help="a pass with nothing to do is no error")


def _add_table(parser: ArgumentParser, output: str) -> None:
    parser.add_argument("--full", action="store_true", help="one row for every convolution")
    _add_output(parser, output)
    _add_strict(parser, "a convolution was refused")


def _add_output(parser: ArgumentParser, help: str) -> None:
    parser.add_argument("-o", "--output", metavar="FILE", help=help)
    _add_json(parser)


def _add_json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _add_strict(parser: ArgumentParser, findings: str) -> None:
    parser.add_argument("--strict", action="store_true", help=f"exit with 1 if {findings}")


def at_least(smallest: int) -> Callable[[str], int]:
    """Integers from ``smallest`` on; for argparse."""

    def parse(text: str) -> int:
        if not text.lstrip("-").isdigit() or int(text) < smallest:
            raise ArgumentTypeError(f"{text!r} is not an integer of at least {smallest}")
        return int(text)

    return parse


def parse_size(text: str) -> tuple[int, int]:
    """``321x481``: height and width in pixels; for argparse."""
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise ArgumentTypeError(f"{text!r} is not a size; write HxW, as in 321x481")
    return int(height), int(width)


def parse_case(text: str) -> tuple[int, int]:
    """``64x56``: channels and side of the map in pixels; for argparse."""
    channels, _, side = text.partition("x")
    if not (channels.isdigit() and side.isdigit()):
        raise ArgumentTypeError(f"{text!r} is not CHANNELSxSIZE; write CxN, as in 64x56")
    return int(channels), int(side)
