"""The README shows what really happens."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_report_on_the_first_screen_is_the_real_one() -> None:
    """Byte for byte but for the last digits of a rounding error, which depend on the machine."""
    script = ROOT / "examples" / "01_first_report.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=True)
    shown = re.search(r"```\n(padrewrite .*?)\n```", README, re.DOTALL)
    assert shown is not None
    assert README[: shown.start()].count("\n") < 25, "the report begins on the first screen"
    assert without_rounding(shown.group(1)) == without_rounding(done.stdout.rstrip())


def without_rounding(text: str) -> str:
    return re.sub(r"worst error \S+", "worst error", text)


def test_every_file_that_the_readme_names_exists() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
