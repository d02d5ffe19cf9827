"""The README shows what really happens."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def output_of(example: str) -> str:
    command = [sys.executable, str(ROOT / "examples" / example)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout


def test_report_on_the_first_screen_is_the_real_one() -> None:
    """Byte for byte but for the last digits of a rounding error, which depend on the machine."""
    shown = blocks()[0]
    assert README[: README.index(shown)].count("\n") < 25, "the report begins on the first screen"
    assert without_rounding(shown) == without_rounding(output_of("01_first_report.py").rstrip())


def test_analysis_is_the_real_one() -> None:
    (shown,) = [block for block in blocks() if "receptive field" in block]
    assert output_of("05_analyze.py").partition("\n\nbody.2: ")[0] == shown


def blocks() -> list[str]:
    """What padrewrite printed, in the order of the page."""
    return re.findall(r"^```\n(padrewrite .*?)\n```$", README, re.DOTALL | re.MULTILINE)


def without_rounding(text: str) -> str:
    return re.sub(r"worst error \S+", "worst error", text)


def test_every_file_that_the_readme_names_exists() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
