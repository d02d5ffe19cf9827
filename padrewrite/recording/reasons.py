"""Why a way of recording did not hold for all inputs, in one line: where in the model, what, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType

from torch import nn
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from padrewrite.errors import RecordError
from padrewrite.ops.sizes import size_words
from padrewrite.source import Source, first_outside

INSTEAD = (
    "recorded on the real inputs instead: what is said holds for the path that these take, and sizes that the forward "
    "computes are not known for others"
)


def fixed_size(places: list[tuple[int, int]], plain: bool, value: object, source: Source | None) -> str:
    """A size that the forward took as a number; ``places``: (input, dimension) that it follows from."""
    sizes = " and ".join(size_words(index, dim) for index, dim in places)
    what = sizes if plain else f"what follows from {sizes}"
    return f"{_at(source)}{what} was used as the number {value}; keep it a size: no int(), range() or numpy of it"


def failure(error: BaseException) -> str:
    """An exception while recording."""
    source = first_outside(reversed(list(_lines(error.__traceback__))))
    if isinstance(error, GuardOnDataDependentSymNode):
        return f"{_at(source)}the forward goes by values in a tensor, as in a branch, an index or a count"
    return _at(source) + (str(error) if isinstance(error, RecordError) else first_line(error))


def first_line(error: BaseException) -> str:
    text = str(error).strip() or repr(error)
    return f"{type(error).__name__}: {text.splitlines()[0][:200]}"


def running(model: nn.Module, error: BaseException) -> str:
    """`` in body.3 (Conv1d)``: the innermost module of the model that was running; nothing if that is the model."""
    names = {id(module): name for name, module in model.named_modules()}
    name, traceback = "", error.__traceback__
    while traceback is not None:
        owner = traceback.tb_frame.f_locals.get("self")
        name = names.get(id(owner), name)
        traceback = traceback.tb_next
    return f" in {name} ({type(model.get_submodule(name)).__name__})" if name else ""


def _at(source: Source | None) -> str:
    return "" if source is None else f"{source}: "


def _lines(traceback: TracebackType | None) -> Iterator[tuple[str, int]]:
    while traceback is not None:
        yield traceback.tb_frame.f_code.co_filename, traceback.tb_lineno
        traceback = traceback.tb_next
