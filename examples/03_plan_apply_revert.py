"""Decide once, keep the decisions as a file, replay them on a fresh model with the old checkpoint, take it all back."""

import tempfile
from pathlib import Path

import torch
from torch import nn

import padrewrite as pr


def build() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 3, padding=1))


model, x = build(), torch.randn(1, 3, 24, 32)
plan = pr.plan(model, ["partial-padding"], example_inputs=x, exclude="0")
print(plan.why_not("0"))
print(plan.why_not("2"))

with tempfile.TemporaryDirectory() as folder:
    plan.save(Path(folder) / "plan.json")
    fresh = pr.apply(build(), pr.Plan.load(Path(folder) / "plan.json"))

fresh.load_state_dict(model.state_dict(), strict=True)  # the original checkpoint: same keys, same shapes
print(pr.verify(fresh, original=model, example_inputs=x))

pr.revert(fresh)
print("reverted equals the original:", torch.equal(fresh(x), model(x)))
