"""Every error class of padrewrite. A message names the layer, the fact, the cause and the fix."""

from __future__ import annotations


class PadrewriteError(Exception):
    """Base of all errors raised on purpose. Whatever raised it changed nothing."""


class SettingsError(PadrewriteError):
    """An environment variable names what cannot be used."""


class ModelError(PadrewriteError):
    """The object given is not a model that can be rewritten here (not a module, or a wrapper to unwrap)."""


class InputsError(PadrewriteError):
    """The example inputs do not fit the model's forward."""


class RecordError(PadrewriteError):
    """The model's forward could not be followed, or its recording did not reproduce it."""


class PassError(PadrewriteError):
    """Unknown pass, bad option, or passes in an order that is not allowed."""


class SelectorError(PadrewriteError):
    """include, exclude or where selected nothing."""


class UnknownNameError(SelectorError, KeyError):
    """An analysis has nothing of this name; the message has the closest names."""

    def __str__(self) -> str:
        return str(self.args[0])


class NoEffectError(PadrewriteError):
    """A pass found nothing to rewrite and nothing already in the wanted form."""


class PlanError(PadrewriteError):
    """A plan that cannot be used: another model's, cut short, or of another schema."""


class WriteError(PadrewriteError):
    """The rewritten model did not become what the plan predicted; the original is restored."""


class SiteMismatch(PadrewriteError):
    """At run time, a redirected call was not the call that the plan decided about."""


class RegionBlocked(PadrewriteError):
    """A region cannot be brought to another stride. It becomes a decision with this code and reason, never a raise."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class ContractViolation(PadrewriteError):
    """A rewrite broke its contract, as measured by verify."""


class RevertError(PadrewriteError):
    """The model cannot be reverted (nothing to revert, or its replaced parameters are gone)."""


class NewParametersWarning(UserWarning):
    """A model was rewritten in place by a pass that makes new parameters: optimizers hold the old ones."""
