"""What a command line names: a model by ``package.module:callable``, inputs by their shapes, a checkpoint."""

from __future__ import annotations

import json
import pickle
import re
import sys
from argparse import ArgumentTypeError
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from padrewrite.errors import ModelError
from padrewrite.recording.reasons import first_line
from padrewrite.selecting import closest
from padrewrite.source import Source, definition

DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")


@dataclass(frozen=True)
class InputSpec:
    """One positional input: its shape and type."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    def tensor(self, generator: torch.Generator) -> Tensor:
        """Normal values; integers are 0 or 1, which any embedding accepts."""
        if self.dtype.is_floating_point:
            return torch.randn(self.shape, generator=generator).to(self.dtype)
        return torch.randint(0, 2, self.shape, generator=generator).to(self.dtype)


def parse_input(text: str) -> InputSpec:
    """``1x3x224x224``, or ``1x16:int64`` with a type; for argparse."""
    shape = re.fullmatch(r"(\d+(?:x\d+)*)(?::(\w+))?", text)
    if shape is None:
        raise ArgumentTypeError(f"{text!r} is not a shape; write 1x3x224x224, or 1x16:int64 with a type")
    sizes, dtype = shape.groups()
    if dtype is not None and dtype not in DTYPES:
        raise ArgumentTypeError(f"{dtype!r} is not a type; choose from {', '.join(DTYPES)}")
    return InputSpec(tuple(map(int, sizes.split("x"))), getattr(torch, dtype or "float32"))


def parse_kwargs(text: str) -> dict[str, Any]:
    """A JSON object; for argparse."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ArgumentTypeError(f"{text!r} is not JSON ({error}); write '{{\"num_classes\": 21}}'") from error
    if not isinstance(value, dict):
        raise ArgumentTypeError(f"{text!r} is not a JSON object; write '{{\"num_classes\": 21}}'")
    return value


def make_inputs(specs: Sequence[InputSpec], seed: int) -> tuple[Tensor, ...] | None:
    """Random inputs, the same for the same seed; None if none were asked for."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(spec.tensor(generator) for spec in specs) or None


def load_model(name: str, kwargs: Mapping[str, Any], seed: int, train: bool = False) -> nn.Module:
    """The module that ``package.module:callable`` makes, in eval mode unless ``train``.

    Raises:
        ModelError: there is no such thing, it fails, or what it makes is not a module.
    """
    found = _find(name)[1]
    if isinstance(found, nn.Module):
        if kwargs:
            raise ModelError(f"{name} is a model already; --kwargs has nothing to be passed to.")
        return found.train(train)
    if not callable(found):
        raise ModelError(f"{name} is a {type(found).__name__}, neither a callable nor a model.")
    torch.manual_seed(seed)
    try:
        model = found(**kwargs)
    except Exception as error:
        given = ", ".join(f"{k}={v!r}" for k, v in kwargs.items())
        raise ModelError(f"{name}({given}) failed: {first_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{name} returns a {type(model).__name__}, not an nn.Module.")
    return model.train(train)


def definition_of(name: str, model: nn.Module) -> Source | None:
    """Where the model's class is defined; for a class of torch, what ``name`` names, or the module that this is in."""
    places = [found for thing in (*type(model).__mro__, *reversed(_find(name))) if (found := definition(thing))]
    return next((place for place in places if not place.is_library), places[0] if places else None)


def _find(name: str) -> tuple[Any, Any]:
    """The module, and what is in it."""
    module_name, _, path = name.partition(":")
    if not module_name or not path:
        raise ModelError(f"{name!r} is not a model; write package.module:callable, as in mypackage.nets:UNet.")
    module = _import(module_name)
    return module, _attribute(module, path)


def _import(name: str) -> Any:
    """The module, looked for in the working directory too, as ``python -m`` does."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return import_module(name)
    except Exception as error:
        raise ModelError(f"{name} cannot be imported: {first_line(error)}") from error


def _attribute(module: Any, path: str) -> Any:
    found = module
    for part in path.split("."):
        if not hasattr(found, part):
            near = ", ".join(closest(part, _callables(found)))
            raise ModelError(f"{module.__name__} has no {path!r}. Closest: {near or 'none'}.")
        found = getattr(found, part)
    return found


def _callables(owner: Any) -> list[str]:
    """What may be meant: models and what makes them, its own if there are any, not what it imported."""
    found = {n: getattr(owner, n, None) for n in dir(owner) if not n.startswith("_")}
    meant = [n for n, value in found.items() if callable(value)]
    return [n for n in meant if getattr(found[n], "__module__", None) == owner.__name__] or meant


def load_checkpoint(model: nn.Module, path: str) -> None:
    """Loads a state_dict into the model, strictly.

    Raises:
        ModelError: the file is not a plain state_dict, or not this model's.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"the checkpoint {path} cannot be read: {first}") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        found = f"the keys {', '.join(map(str, list(state)[:4]))}" if isinstance(state, dict) else type(state).__name__
        raise ModelError(
            f"the checkpoint {path} is not a state_dict (it holds {found}); save model.state_dict() alone."
        )
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:4]]
        raise ModelError(f"the checkpoint {path} is not of this {type(model).__name__}: {' '.join(lines)}") from error


def save_model(model: nn.Module, path: str) -> None:
    """Writes the whole model with ``torch.save``; a file that was there stays whole until the new one is.

    Raises:
        ModelError: the model cannot be pickled, or the file cannot be written.
    """
    partial = Path(f"{path}.partial")
    try:
        torch.save(model, partial)
        partial.replace(path)
    except Exception as error:
        partial.unlink(missing_ok=True)
        raise ModelError(f"{path} was not written: {type(error).__name__}: {error}") from error
