"""``padrewrite demo``: the measurements on maps that are known, and the whole of it on a small crop."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from padrewrite.cli import main
from padrewrite.cli.border import border_distance, draw_kernels, estimate_statistics, normalised, profile, response_maps
from padrewrite.cli.demo import take_crop


def test_distance_from_the_border() -> None:
    wanted = [[0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 1, 2, 1, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]]
    assert border_distance(5, 5).tolist() == wanted
    assert border_distance(2, 4).tolist() == [[0, 0, 0, 0], [0, 0, 0, 0]]


def test_profile_is_relative_to_the_interior() -> None:
    response = torch.full((9, 11), 4.0)
    response[0] = response[-1] = 1.0
    response[:, 0] = response[:, -1] = 1.0
    assert profile(response) == [0.25, 1.0, 1.0, 1.0, 1.0]
    assert normalised(response)[0, 0] == 0.25


def test_profile_sees_the_dip_of_zero_padding() -> None:
    """A box filter on a constant: zero padding answers 2/3 at an edge and 4/9 in a corner."""
    box = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    nn.init.ones_(box.weight)
    (response,) = response_maps(box, torch.ones(1, 1, 9, 9), {"box": ""}).values()
    edges, corners = 4 * 7, 4  # the responses are float32
    assert profile(response)[0] == pytest.approx((edges * 2 / 3 + corners * 4 / 9) / (edges + corners), abs=1e-6)


def test_statistics_are_those_of_the_batch() -> None:
    norm = nn.BatchNorm2d(2)
    x = torch.randn(4, 2, 5, 6) * 3 + 1
    estimate_statistics(norm, x)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert torch.allclose(norm.running_mean, x.mean((0, 2, 3)))
    assert torch.allclose(norm.running_var, x.var((0, 2, 3)))
    assert norm.momentum == 0.1
    assert not norm.training


def test_kernels_are_patches_of_the_input() -> None:
    conv = nn.Conv2d(2, 5, (3, 2), dilation=(2, 3), padding=2)
    x = torch.randn(1, 2, 12, 13)
    draw_kernels(conv, x, seed=0)
    taps = x.unfold(2, 5, 1).unfold(3, 4, 1)[0, :, :, :, ::2, ::3].permute(1, 2, 0, 3, 4).flatten(0, 1)
    kernels = conv.weight.detach()
    assert torch.allclose(kernels.flatten(1).norm(dim=1), torch.ones(5))
    # Less the mean patch, which is one number per channel: what is left of both is equal up to a factor.
    shapes = taps - taps.mean((2, 3), keepdim=True)
    found = kernels - kernels.mean((2, 3), keepdim=True)
    likeness = torch.nn.functional.normalize(found.flatten(1)) @ torch.nn.functional.normalize(shapes.flatten(1)).T
    assert torch.allclose(likeness.max(1).values, torch.ones(5))


def test_the_crop_keeps_feature_maps_in_line() -> None:
    scene = take_crop(torch.zeros(1, 3, 427, 640), (321, 481))
    assert (scene.top % 8, scene.left % 8) == (0, 0)
    assert tuple(scene.crop.shape) == (1, 3, 321, 481)


@pytest.mark.parametrize("size", ["33x97", "427x640"])
def test_size_must_fit_the_photograph(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pytorchcv")
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    assert main(["demo", "--size", size]) == 2
    assert f"InputsError: the demo's size is {size}; it must be from 65x65 to 379x592" in capsys.readouterr().err


EXTRAS = {
    "pytorchcv": ("pytorchcv", "pip install --no-deps pytorchcv"),
    "sklearn": ("scikit-learn", "pip install 'padrewrite[figures]'"),
    "PIL": ("pillow", "pip install 'padrewrite[figures]'"),
    "matplotlib": ("matplotlib", "pip install 'padrewrite[figures]'"),
}


@pytest.mark.parametrize("missing", EXTRAS)
def test_a_missing_package_is_named_with_the_line_to_run(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any) -> Any:
        top = name.partition(".")[0]
        if top == missing:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return type(sys)(name) if top in EXTRAS else real(name, *args)

    monkeypatch.setattr(builtins, "__import__", refuse)
    code = main(["demo"])
    monkeypatch.undo()
    package, line = EXTRAS[missing]
    err = capsys.readouterr().err
    assert code == 2
    assert f"padrewrite demo needs {package}" in err
    assert line in err


@pytest.mark.slow
@pytest.mark.zoo
def test_demo_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("pytorchcv", "sklearn", "matplotlib"):
        pytest.importorskip(package)
    file = tmp_path / "border.png"
    assert main(["demo", "--size", "97x129", "-o", str(file)]) == 0
    out = capsys.readouterr().out
    assert file.read_bytes().startswith(b"\x89PNG")
    assert "65         24    41        0" in out
    assert "48 checks held" in out
    rows = {line.split("  ")[0]: line.split()[-3:] for line in out.splitlines() if line.startswith("stage ")}
    zero, partial, reference = map(float, rows["stage 3"])
    assert zero < 0.85
    assert abs(partial - reference) < abs(zero - reference)
