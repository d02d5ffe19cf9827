"""Every example runs as it stands, and prints what it is there to show."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("[0-9]*.py"))
SHOWN = {
    "01_first_report": ["partial-padding", "checks held", "kept"],
    "02_wrap_around": ["seam error after", "circular"],
    "03_plan_apply_revert": ["not-selected", "unpadded", "reverted equals the original: True"],
    "04_compiler_plugin": ["compiled against rewritten", "partial-padding"],
    "05_analyze": [
        "half-pixel-shift",
        "body.2: position i is centred on pixel 4i + 1/2",
        "rates that grid: [(2, 2, 2)]",
    ],
    "06_gridding": ["49 of 13x13 pixels read, gridding score 1.00", "169 of 13x13 pixels read, gridding score 0.11"],
    "07_hybrid_dilation": [
        "backbone.3.unit2.body.conv2.conv and 7 more: rates 2,2,2,2,2,2,4,4 -> 1,3,4,1,3,4,1,3",
        "441 of 41x41 pixels read, gridding score 1.00",
        "1681 of 41x41 pixels read, gridding score 0.00",
    ],
    "10_valid_weights": ["rate 1: 0.980", "rate 12: 0.769", "rate 65: 0.111"],
    "11_erosion": ["3x3: 0.31 is left", "2x2 symmetric: 0.4 is left", "2x2: 1.5e-05 is left", "4x4: 0.0063 is left"],
    "12_receptive_field": [
        "down.branches.branch4: 441 of 71x71 pixels, 4600 holes",
        "block1.branches.branch2: 7393 of 124x151 pixels, 11331 holes",
    ],
    "13_shift": [
        "0: position 0 sits on pixel 1/2, after the rewrite on 0",
        "12: position 0 sits on pixel 17/2, after the rewrite on 3/2",
    ],
    "20_even_kernels_on_digits": ["C3         28378", "C2         28738", "C2sp       28738"],
    "21_large_kernels_on_digits": ["separable-kernel{mid=60%}", "bounded(", "7x7        76474"],
}
DRAWN = {
    "06_gridding": ["gridding.png"],
    "07_hybrid_dilation": ["hybrid_dilation.png"],
    "10_valid_weights": ["valid_weights.png"],
    "11_erosion": ["erosion.png"],
    "12_receptive_field": ["receptive_field.png"],
    "13_shift": ["shift.png"],
    "20_even_kernels_on_digits": ["even_kernels_on_digits.png"],
    "21_large_kernels_on_digits": ["large_kernels_on_digits.png"],
}
NEEDS = {
    "07_hybrid_dilation": "pytorchcv",
    "12_receptive_field": "pytorchcv",
    "20_even_kernels_on_digits": "sklearn",
    "21_large_kernels_on_digits": "sklearn",
}


@pytest.mark.compile
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda p: p.stem)
def test_example_runs(example: Path, tmp_path: Path) -> None:
    if example.stem in NEEDS:
        pytest.importorskip(NEEDS[example.stem])
    done = subprocess.run([sys.executable, str(example)], capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for text in SHOWN[example.stem]:
        assert text in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == DRAWN.get(example.stem, [])
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())
