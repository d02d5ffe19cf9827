"""Recording a model: symbolic sizes where that works, the real inputs otherwise, and never believed unchecked."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._dispatch.python import enable_python_dispatcher
from torch.overrides import TorchFunctionMode

from padrewrite.errors import InputsError, RecordError
from padrewrite.graph import Graph
from padrewrite.recording.births import Births
from padrewrite.recording.execute import execute, state_of
from padrewrite.recording.inputs import Inputs
from padrewrite.recording.preserve import preserved
from padrewrite.recording.reasons import INSTEAD, failure, first_line, fixed_size, running
from padrewrite.recording.recorder import Recorder
from padrewrite.recording.symbolic import Sizes, symbolic_sizes
from padrewrite.recording.tensors import tensors_in


def trace(model: nn.Module, inputs: Inputs, symbolic: bool = True) -> Graph:
    """The model's graph on ``inputs``, equal to eager by execution.

    With ``symbolic``, sizes are symbols if they can be. Without, they are numbers if they can be: several times faster,
    and all that is needed to run the graph on ``inputs``.

    On ``meta`` (model or inputs) nothing can be executed; the graph then says so in its notes.

    Raises:
        InputsError: the model's own forward fails on these inputs.
        RecordError: the forward could not be followed, or its recording does not reproduce it.
    """
    if inputs.on_meta or any(p.is_meta for p in model.parameters()):
        try:
            graph, fixed = _follow_symbolic(model, inputs)
        except Exception as error:
            raise InputsError(
                f"{type(model).__name__}.forward failed on meta tensors ({inputs}){running(model, error)}: "
                f"{first_line(error)}"
            ) from error
        return replace(graph, notes=(*graph.notes, *filter(None, [fixed]), "not executed: tensors are on meta"))
    expected, convolutions = _eager(model, inputs)
    reasons: list[str] = []
    for follow in (_follow_symbolic, _follow_real) if symbolic else (_follow_real, _follow_symbolic):
        try:
            graph, problem = follow(model, inputs)
        except Exception as error:
            reasons.append(f"{_HOW[follow]}: {failure(error)}")
            continue
        problem = problem or _disagreement(model, inputs, graph, expected, convolutions)
        if problem is None:
            instead = f"; {INSTEAD}" if follow is _follow_real else ""
            return replace(graph, notes=(*graph.notes, *(reason + instead for reason in reasons)))
        reasons.append(f"{_HOW[follow]}: {problem}")
    raise RecordError(
        f"{type(model).__name__} could not be recorded.\n  " + "\n  ".join(reasons) + "\n"
        "Record the part that can be followed, as in transform(model.backbone, ...), or leave example_inputs out: "
        "passes that need no dataflow then work on the module tree."
    )


def _eager(model: nn.Module, inputs: Inputs) -> tuple[list[Tensor], int]:
    with preserved(model), Births() as births, _Watched(), _quiet():
        fresh = inputs.fresh()
        try:
            output = model(*fresh.args, **fresh.kwargs)
        except Exception as error:
            raise InputsError(
                f"{type(model).__name__}.forward failed on example_inputs ({inputs}){running(model, error)}: "
                f"{first_line(error)}"
            ) from error
        return [t.detach().clone() for t in tensors_in(output)], births.convolutions


def _follow_symbolic(model: nn.Module, inputs: Inputs) -> tuple[Graph, str | None]:
    env = Sizes()
    mode = env.fake_mode(model)
    fakes = inputs.map(lambda t: mode.from_tensor(t.detach(), symbolic_context=symbolic_sizes(t)))
    symbols: dict[Any, tuple[int, int]] = {}
    for index, fake in enumerate(fakes.tensors):
        for dim, size in enumerate(fake.shape):
            if isinstance(size, torch.SymInt) and size.node.expr.is_Symbol:
                symbols.setdefault(size.node.expr, (index, dim))
    with preserved(model), mode, enable_python_dispatcher(), _silent("torch._subclasses.fake_tensor"):
        graph = _run(model, fakes, None, symbols, env)
    return graph, _fixed(env, symbols) or _settled(model, inputs, env, symbols)


def _fixed(env: Sizes, symbols: dict[Any, tuple[int, int]]) -> str | None:
    """Which size became a number, and where; None if none did."""
    if env.fixed is None:
        return None
    expression, value, source = env.fixed
    places = sorted(symbols[s] for s in expression.free_symbols if s in symbols)
    return fixed_size(places, expression.is_Symbol, value, source)


def _settled(model: nn.Module, inputs: Inputs, env: Sizes, symbols: dict[Any, tuple[int, int]]) -> str | None:
    """Which size an answer settled, of a model that runs at others too. torch writes such a size as a number.

    Where the model runs at no other, that is no fault of the recording.
    """
    for symbol, place in symbols.items():
        value: Any = env.replacements.get(symbol, symbol)
        if value.is_number:
            for more in (more for more in _OTHER_SIZES if int(value) + more > 0):
                try:
                    _eager(model, _resized(inputs, place, int(value) + more))
                except InputsError:
                    continue
                return f"it took a path that is only for size {value} of input {place[0]} along dimension {place[1]}"
    return None


_OTHER_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 32, -1, -2, -3, -4)
"""How much larger or smaller: sizes that a stride or a shuffle may ask for are among them, and those below a crop's."""


def _resized(inputs: Inputs, place: tuple[int, int], size: int) -> Inputs:
    """The inputs with one dimension of one tensor of another size, its values repeated."""
    chosen = inputs.tensors[place[0]]

    def resized(tensor: Tensor) -> Tensor:
        if tensor is not chosen:
            return tensor
        index = torch.arange(size, device=tensor.device) % tensor.shape[place[1]]
        return tensor.detach().index_select(place[1], index)

    return inputs.map(resized)


@contextlib.contextmanager
def _silent(name: str) -> Iterator[None]:
    """A failure here is an answer, told in one message; torch would log a page about it."""
    logger = logging.getLogger(name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _follow_real(model: nn.Module, inputs: Inputs) -> tuple[Graph, str | None]:
    with preserved(model), Births() as births:
        graph = _run(model, inputs.fresh(), births, {}, None)
    return graph, None


_HOW: dict[Any, str] = {_follow_symbolic: "on symbolic sizes", _follow_real: "on the real inputs"}


def _run(
    model: nn.Module, inputs: Inputs, births: Births | None, symbols: dict[Any, tuple[int, int]], sizes: Sizes | None
) -> Graph:
    names = {id(t): name for name, t in [*model.named_parameters(), *model.named_buffers()]}
    recorder = Recorder(names, births, symbols, sizes)
    recorder.add_inputs(inputs)
    with recorder.following(model), recorder, _quiet():
        output = recorder.call(model, inputs)
    recorder.finish(output)
    if symbols and any(isinstance(t, torch._subclasses.FakeTensor) for t in recorder.constants.values()):
        raise RecordError("a tensor was made by calls that torch does not show")
    buffers = {*recorder.constants, *(name for name, _ in model.named_buffers())}
    for node in recorder.graph.find_nodes(op="get_attr"):
        node.meta["buffer"] = node.target in buffers
    how = "real inputs" if sizes is None else "symbolic"
    graph = Graph.from_nodes(recorder.graph, how, recorder.constants, reads_values=recorder.reads_values)
    return replace(graph, conditions=recorder.conditions())


class _Watched(TorchFunctionMode):
    """Does nothing. Some modules (attention) take another path while any such mode is active, as while recording."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What a forward warns of while it is being recorded (no gradients, fake tensors) is not news about the model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _disagreement(
    model: nn.Module, inputs: Inputs, graph: Graph, expected: Sequence[Tensor], convolutions: int
) -> str | None:
    """Why ``graph`` is not a recording of the model; None if it is."""
    if len(graph.sites) != convolutions:
        return _complex(graph) or f"{convolutions} convolutions ran but {len(graph.sites)} were recorded"
    assert graph.nodes is not None
    with preserved(model), _quiet():
        try:
            got = execute(graph.nodes, state_of(model, graph.constants), inputs.fresh().tensors)
        except Exception as error:
            return f"the recorded graph does not run: {first_line(error)}"
    if len(got) != len(expected):
        return f"eager returns {len(expected)} tensors, the recording {len(got)}"
    for index, (a, b) in enumerate(zip(got, expected)):
        if a.shape != b.shape or a.dtype != b.dtype:
            return f"output {index} is {tuple(b.shape)} {b.dtype} in eager, {tuple(a.shape)} {a.dtype} recorded"
        if not torch.equal(a, b) and not _within_noise(model, inputs, index, a, b):
            worst = (a.double() - b.double()).abs().max().item()
            return f"output {index} differs from eager by up to {worst:.3g}"
    return None


def _complex(graph: Graph) -> str | None:
    """What to do about complex convolutions, of which torch makes several real ones; None if there are none."""
    sites = [name for name, conv in graph.conv_nodes.items() if conv.node.meta["dtype"].is_complex]
    if not sites:
        return None
    return (
        f"{', '.join(sites)}: complex convolutions are not followed; convolve real and imaginary parts as real "
        "tensors (torch.view_as_real)"
    )


def _within_noise(model: nn.Module, inputs: Inputs, index: int, got: Tensor, expected: Tensor) -> bool:
    """Whether a difference is no larger than between two eager runs (nondeterministic kernels), NaNs aside."""
    if not (got.is_floating_point() or got.is_complex()):
        return False
    again = _eager(model, inputs)[0][index]
    noise = (torch.nan_to_num(again) - torch.nan_to_num(expected)).abs().max()
    difference = (torch.nan_to_num(got) - torch.nan_to_num(expected)).abs().max()
    same_nans = torch.equal(got.isnan(), expected.isnan())
    # Kernels that add in another order differ in the last digits; a forward that changes from call to call does not.
    rounding = 1e3 * torch.finfo(expected.dtype).eps * torch.nan_to_num(expected).abs().max()
    return same_nans and bool(difference <= noise) and bool(noise <= rounding)


def follow(model: nn.Module, inputs: Inputs, how: str, mode: str) -> Graph:
    """The model's graph by the way a first recording took, not executed: for comparing with a prediction.

    Args:
        mode: "train", "eval" or "mixed", the mode the first recording was made in; the model is put into it meanwhile.
    """
    matched = inputs.map(lambda t: _like_parameters(model, t))
    with preserved(model):
        if mode != "mixed":
            for module in model.modules():
                module.training = mode == "train"
        return (_follow_symbolic if how == "symbolic" else _follow_real)(model, matched)[0]


def mode_of(model: nn.Module) -> str:
    """ "train" or "eval" if all modules agree, else "mixed"."""
    modes = {module.training for module in model.modules()}
    return "mixed" if len(modes) > 1 else "train" if True in modes else "eval"


def _like_parameters(model: nn.Module, tensor: Tensor) -> Tensor:
    """``tensor`` on the model's device and, if both are floating-point, of its type."""
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    if parameter is None or (parameter.device == tensor.device and parameter.dtype == tensor.dtype):
        return tensor
    return tensor.to(parameter.device, parameter.dtype if tensor.is_floating_point() else tensor.dtype)
