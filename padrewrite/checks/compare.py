"""Adding up comparisons of one kind into one piece of evidence."""

from __future__ import annotations

from torch import Tensor

from padrewrite.contracts import Evidence


class Comparison:
    """The worst error over any number of tensor pairs, and where it was."""

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._worst = 0.0
        self._positions = 0
        self._failure = ""

    def add(self, got: Tensor, wanted: Tensor) -> None:
        """Compares two tensors by a tolerance relative to the largest wanted value, or to 1; on meta only shapes.

        Where both are NaN there is nothing to compare.
        """
        if got.shape != wanted.shape:
            self._positions += max(1, wanted.numel())
            self._worst = float("inf")
            self._failure = f"shape {tuple(got.shape)} instead of {tuple(wanted.shape)}"
            return
        if not wanted.numel() or got.is_meta or wanted.is_meta:
            return
        neither = got.isnan() & wanted.isnan()
        self._positions += wanted.numel() - int(neither.sum())
        difference, wanted = (got - wanted).abs().masked_fill(neither, 0), wanted.masked_fill(neither, 0)
        error = difference.max().item()
        if not error <= self._worst:
            self._worst = error
        if not error <= self._tolerance * max(1.0, wanted.abs().max().item()) and not self._failure:
            flat = int(difference.nan_to_num(float("inf")).argmax())
            place: list[int] = []
            for size in reversed(wanted.shape):
                flat, index = divmod(flat, size)
                place.insert(0, index)
            at = tuple(place)
            self._failure = f"differs at {place}: {got[at].item():.6g} vs {wanted[at].item():.6g}"

    def evidence(self, site: str, contract: str, note: str = "") -> Evidence:
        """What was found; VACUOUS if nothing was compared."""
        vacuous = self._positions == 0
        text = self._failure or ("nothing to compare" if vacuous else "")
        return Evidence(site, contract, self._worst, vacuous, not self._failure, text or note, self._positions)
