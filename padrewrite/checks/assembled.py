"""Replaced and attached layers: what they compute against a naive float64 reference, and how far from the old layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.stateless import _reparametrize_module

from padrewrite.checks.compare import Comparison
from padrewrite.checks.sites import check_site, explicitly_padded, naive, reference_pool
from padrewrite.contracts import Contract, Evidence
from padrewrite.edits import Edit
from padrewrite.ops.assembly import Assembly, Attached, Norm, Part
from padrewrite.ops.carrying import convert, probe
from padrewrite.ops.conv import Conv
from padrewrite.ops.pool import Pool
from padrewrite.ops.realise import behind_pads
from padrewrite.writing.replacing import held_layer


def check_assembled(
    model: nn.Module,
    edit: Edit,
    edits: Mapping[str, Edit],
    original: nn.Module | None,
    rounds: int,
    generator: torch.Generator,
    tolerance: float,
) -> list[Evidence]:
    """Evidence that the layer computes its assembly, and that it keeps to its bound.

    Args:
        edits: by site; later rewrites of the layer's children change what the assembly is.
    """
    module: Any = model.get_submodule(edit.below)
    assembly = edit.after.assembly if isinstance(edit.after, Attached) else behind_pads(edit.after, edit.explicit)  # pyright: ignore[reportArgumentType]
    assert isinstance(assembly, Assembly)
    ops = {name: _now(edit, name, part, edits) for name, part in assembly.parts}
    folded = {name for name in ops if (later := edits.get(f"{edit.below}.{name}")) is not None and later.explicit}
    state = {name: _full(t).detach().double() for name, t in module.state_dict().items()}
    matches = Comparison(tolerance)
    for trial in range(rounds):
        given = x = _input(edit, assembly, trial, generator).to(_device(state))
        for pad in reversed(edit.explicit):
            x = explicitly_padded(x, pad)
        with _evaluating(module), _reparametrize_module(module, {name: t.clone() for name, t in state.items()}):
            got: Tensor = type(module).forward(module, x)
        matches.add(got, naive_assembly(assembly, ops, state, x, dict.fromkeys(folded, given)))
    found = [matches.evidence(edit.site.id, "reference")]
    if edit.bound is not None:
        found.append(_bounded(edit, state, module, original))
    if isinstance(edit.after, Attached):
        changed = edit.after.op != edit.before
        found.append(_exact(edit, assembly, state, generator, tolerance))
        found += check_site(model, replace(edit, after=edit.after.op), rounds, generator, tolerance) if changed else []
    return found


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Batch norms inside use their running statistics meanwhile."""
    modes = [(m, m.training) for m in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for m, training in modes:
            m.training = training


def naive_assembly(
    assembly: Assembly,
    ops: Mapping[str, Part | Attached],
    state: Mapping[str, Tensor],
    x: Tensor,
    unpadded: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """The reference for an assembly in float64, from its fields alone.

    Args:
        ops: its parts by name.
        unpadded: what the parts read into which explicit pads before the layer are folded.
    """
    total = x if assembly.skip else torch.zeros((), dtype=x.dtype)
    for branch in assembly.branches:
        value = x
        for index in range(len(branch.parts)):
            name = f"{branch.name}.{index}"
            own = {key.removeprefix(f"{name}."): t for key, t in state.items() if key.startswith(f"{name}.")}
            value = _naive_part(ops[name], own, (unpadded or {}).get(name, value))
        total = total + value
    return total


def _naive_part(part: Part | Attached, state: Mapping[str, Tensor], x: Tensor) -> Tensor:
    if isinstance(part, Attached):
        start = f"{part.name}."
        behind = {key.removeprefix(start): t for key, t in state.items() if key.startswith(start)}
        return naive_assembly(part.assembly, dict(part.assembly.parts), behind, _naive_part(part.op, state, x))
    if isinstance(part, Conv):
        return naive(part, x, state["weight"], state.get("bias"))
    if isinstance(part, Pool):
        return reference_pool(part, x)
    if isinstance(part, Norm):
        shape = (1, -1, *(1,) * (x.dim() - 2))
        mean, var, weight, bias = (state[n].reshape(shape) for n in ("running_mean", "running_var", "weight", "bias"))
        return (x - mean) / (var + 1e-5) ** 0.5 * weight + bias
    return torch.where(x > 0, x, torch.zeros_like(x))


def _now(edit: Edit, name: str, part: Part, edits: Mapping[str, Edit]) -> Part | Attached:
    """What a part computes after later rewrites of its own."""
    place = f"{edit.below}.{name}"
    later = edits.get(f"{place}#{part.family}.0" if isinstance(part, Pool) else place)
    return later.after if later is not None and isinstance(later.after, (Conv, Pool, Attached)) else part


def _bounded(edit: Edit, state: Mapping[str, Tensor], module: nn.Module, original: nn.Module | None) -> Evidence:
    """The relative error of the outputs on the noise on which the bound was stated, borders as both layers pad."""
    assert edit.assembly is not None
    assert edit.bound is not None
    promise, assembly = str(Contract.bounded(edit.bound)), edit.assembly
    old = held_layer(module, original, edit.owner)
    if old is None:
        note = "the old weights are not in this process; give original"
        return Evidence(edit.site.id, promise, 0.0, True, True, note)
    dense = assembly.dense(edit.old)
    noise, weight = probe(dense), _full(old.weight).detach().double().cpu()
    wanted = naive(dense, noise, _centred(weight, dense.kernel), None)
    plain = {name: _unpadded(part) for name, part in assembly.parts}
    linear = {name: t.cpu() for name, t in state.items() if not name.endswith(".bias")}
    got = naive_assembly(assembly, plain, linear, noise)
    error = ((got - wanted).norm() / wanted.norm()).item() if wanted.any() else got.norm().item()
    if error > edit.bound and not _as_carried(edit, linear, old):
        note = "its parameters have changed since they were carried over"
        return Evidence(edit.site.id, promise, error, True, True, note)
    note = f"relative error {error:.3g} of the outputs on noise"
    return Evidence(edit.site.id, promise, error, False, error <= edit.bound, note, got.numel())


def _unpadded(part: Part) -> Part:
    """A convolution without bias and partial padding: what is linear in it."""
    return replace(part, bias=False, partial=None) if isinstance(part, Conv) else part


def _centred(weight: Tensor, kernel: tuple[int, ...]) -> Tensor:
    """``weight`` in the middle of zeros."""
    whole = weight.new_zeros((*weight.shape[:2], *kernel))
    inside = [slice((k - n) // 2, (k - n) // 2 + n) for k, n in zip(kernel, weight.shape[2:])]
    whole[(slice(None), slice(None), *inside)] = weight
    return whole


def _as_carried(edit: Edit, state: Mapping[str, Tensor], old: nn.Module) -> bool:
    """Whether the parameters are those that carrying the old ones over gives."""
    assert edit.assembly is not None
    made = convert(edit.old, edit.assembly, _full(old.weight), old.bias)  # pyright: ignore[reportArgumentType]
    return all(torch.allclose(t.double().cpu(), state[name], rtol=1e-3) for name, t in made.items() if name in state)


def _exact(
    edit: Edit, assembly: Assembly, state: Mapping[str, Tensor], generator: torch.Generator, tolerance: float
) -> Evidence:
    """That what is attached adds nothing where its last layer is zero, as it is when it is new."""
    zero = tuple(f"{name}." for name in assembly.zero)
    same = not any(t.any() for name, t in state.items() if name.startswith(zero) and not t.is_meta)
    x = _input(edit, assembly, 0, generator).to(_device(state))
    found = Comparison(tolerance)
    found.add(naive_assembly(assembly, dict(assembly.parts), state, x), x)
    if same:
        return found.evidence(edit.site.id, "exact")
    note = "its parameters were trained since it was attached as the identity"
    return Evidence(edit.site.id, "exact", 0.0, True, True, note)


def _input(edit: Edit, assembly: Assembly, trial: int, generator: torch.Generator) -> Tensor:
    """A random input of the assembly, of a size that differs per axis and trial."""
    w = assembly.window
    sizes = [
        max(span, lo + 1, hi + 1) + axis + trial % 3 + stride
        for axis, (span, stride, lo, hi) in enumerate(zip(w.span, w.stride, w.lo, w.hi))
    ]
    channels = assembly.in_channels if assembly.branches else 2
    return torch.randn(1, channels, *sizes, generator=generator, dtype=torch.float64)


def _device(state: Mapping[str, Tensor]) -> torch.device:
    return next((t.device for t in state.values()), torch.device("cpu"))


def _full(tensor: Any) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
