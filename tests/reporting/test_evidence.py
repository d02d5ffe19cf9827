"""Evidence as text: what is vacuous is never counted as held, and what failed shows where."""

from __future__ import annotations

import math

import pytest

from padrewrite.checks.verification import Verification
from padrewrite.contracts import Evidence
from padrewrite.reporting import verification_text

from .plans import show

FAILED = show("layer3.1.conv2", "grid(2)", 4.4e-3, ok=False, note="differs at [0, 17, 5, 9]: 0.1234 vs 0.1190")


def table(*evidence: Evidence, notes: tuple[str, ...] = ()) -> list[str]:
    return verification_text(Verification(evidence, notes)).splitlines()


def test_a_row_for_each_kind_and_place() -> None:
    lines = table(
        show("a", "interior(1..1)", 1e-15),
        show("b", "interior(2..2)", 3e-15, positions=2000),
        show("c", "interior(2..2)", vacuous=True),
        show("end to end", "interior"),
    )
    assert lines[0] == "3 checks held, float64, worst error 3.0e-15"
    assert " ".join(lines[1].split()) == "contract where checks held VACUOUS FAILED values compared worst error"
    assert lines[2].split() == ["interior", "sites", "3", "2", "1", "0", "2,020", "3.0e-15"]
    assert lines[3].split() == ["interior", "end", "to", "end", "1", "1", "0", "0", "10", "0"]


def test_a_failure_shows_site_promise_and_position() -> None:
    lines = table(show(), FAILED)
    assert lines[0] == "FAILED: 1 of 2 checks"
    words = "FAILED layer3.1.conv2 promised grid(2): error 4.4e-03; differs at [0, 17, 5, 9]: 0.1234 vs 0.1190"
    assert words in " ".join(lines)


@pytest.mark.parametrize("evidence", [(), (show(vacuous=True),), (show(vacuous=True), show("b", vacuous=True))])
def test_nothing_compared_is_no_pass(evidence: tuple[Evidence, ...]) -> None:
    lines = table(*evidence)
    assert lines[0].startswith("nothing was tested")
    assert "held, float64" not in lines[0]


def test_a_vacuous_check_that_is_not_ok_counts_as_vacuous_only() -> None:
    """``ok`` says nothing where nothing was compared, one way or the other."""
    lines = table(show(), show("b", vacuous=True, ok=False, note="no interior"))
    assert lines[0] == "1 check held, float64, worst error 0"
    assert lines[-1] == "VACUOUS interior, 1 of 2 sites: no interior [b]"


def test_vacuous_checks_are_grouped_by_their_reason() -> None:
    lines = table(*(show(f"s{i}", vacuous=True, note="too small") for i in range(40)))
    assert lines[-1] == "VACUOUS interior, 40 of 40 sites: too small [s0, s1, s2 and 37 more]"


def test_nan_is_the_worst_error() -> None:
    assert table(show(error=1.0), show("b", error=math.nan, ok=False))[2].split()[-1] == "nan"


def test_notes_come_last() -> None:
    assert table(show(), notes=("end to end was not checked",))[-1] == "end to end was not checked"
