"""SARIF logs against the standard, and where their results are."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from sarif_standard import check_log

from padrewrite.analyses.analysis import Analysis
from padrewrite.analyses.findings import CODES
from padrewrite.reporting.sarif import sarif
from padrewrite.source import Source

from .analyses import analyses, found, make_analysis, record


def only(analysis: Analysis, *definition: Source) -> dict[str, Any]:
    log = sarif(analysis, *definition)
    check_log(log)
    (result,) = log["runs"][0]["results"]
    return result


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """A line of a file below the working directory."""
    file = tmp_path / "work" / "nets" / "a b#ü:1.py"
    file.parent.mkdir(parents=True)
    file.write_text("pass\n" * 14)
    monkeypatch.chdir(tmp_path / "work")
    return Source(str(file), 14)


def test_a_finding_is_a_result_with_its_place(net: Source) -> None:
    finding = found("padded-weights", "head.conv", "36% of its weights meet real input", source=net)
    result = only(make_analysis([record("head.conv")], [finding]))
    assert result["ruleId"] == "padded-weights"
    assert result["level"] == "warning"
    assert result["message"]["text"] == "head.conv: 36% of its weights meet real input."
    (location,) = result["locations"]
    assert location["physicalLocation"] == {
        "artifactLocation": {"uri": "nets/a%20b%23%C3%BC%3A1.py", "uriBaseId": "%SRCROOT%"},
        "region": {"startLine": 14},
    }
    assert location["logicalLocations"] == [
        {"name": "conv", "fullyQualifiedName": "head.conv", "kind": "member"},
    ]


def test_the_name_of_a_call_is_left_as_it_is(net: Source) -> None:
    results = sarif(make_analysis(findings=[found("misaligned-merge", "#cat.0", "cat joins", source=net)]))
    assert results["runs"][0]["results"][0]["message"]["text"] == "#cat.0: cat joins."
    results = sarif(make_analysis(findings=[found("uneven-padding", "(model)", "at size 128", source=net)]))
    assert results["runs"][0]["results"][0]["message"]["text"] == "At size 128."


def test_no_two_findings_have_the_same_fingerprint(net: Source) -> None:
    two = [found("uneven-padding", "(model)", f"at size {size}", source=net) for size in (33, 65)]
    others = [found("misaligned-merge", f"#cat.{i}", "cat joins", source=net) for i in (0, 1)]
    results = sarif(make_analysis(findings=[*two, *others]))["runs"][0]["results"]
    prints = [result["partialFingerprints"]["codeAndSite/v1"] for result in results]
    assert prints == [
        *("uneven-padding@(model)", "uneven-padding@(model)#2"),
        *("misaligned-merge@#cat.0", "misaligned-merge@#cat.1"),
    ]


def test_a_file_outside_the_working_directory_is_absolute(
    net: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wo").mkdir()
    monkeypatch.chdir(tmp_path / "wo")
    artifact = only(make_analysis(findings=[found(source=net)]))["locations"][0]["physicalLocation"]["artifactLocation"]
    assert artifact == {"uri": Path(net.path).as_uri()}


@pytest.mark.skipif(os.name != "posix", reason="a root without a drive")
def test_below_the_root_of_all_files(net: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    artifact = only(make_analysis(findings=[found(source=net)]))["locations"][0]["physicalLocation"]["artifactLocation"]
    assert artifact["uriBaseId"] == "%SRCROOT%"


def test_every_code_is_a_rule_with_its_page() -> None:
    rules = sarif(make_analysis())["runs"][0]["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == list(CODES)
    assert all(f"docs/findings/{rule['id']}.md" in rule["help"]["text"] for rule in rules)
    assert {rule["id"]: rule["defaultConfiguration"]["level"] for rule in rules} == {
        c: s for c, (s, _) in CODES.items()
    }


def test_a_model_without_findings_has_an_empty_list_of_results() -> None:
    """Absent would mean that nothing was scanned."""
    assert sarif(make_analysis())["runs"][0]["results"] == []


def test_a_finding_about_the_model_points_at_its_sites(net: Source) -> None:
    finding = found("zero-border", "(model)", sites=("head#conv2d.0", "stem"), cure="partial-padding")
    result = only(make_analysis([record(source=net), record("head#conv2d.0", source=None)], [finding]))
    assert result["level"] == "note"
    assert result["message"]["text"] == "What is wrong. Cure: partial-padding."
    assert result["properties"]["cure"] == "partial-padding"
    first, second = result["relatedLocations"]
    (own,) = result["locations"]
    assert own["logicalLocations"] == [{"name": "Net", "fullyQualifiedName": "Net", "kind": "type"}]
    assert own["physicalLocation"] == second["physicalLocation"]
    assert own["physicalLocation"]["region"] == {"startLine": 14}
    assert "physicalLocation" not in first
    assert first["logicalLocations"][0] == {
        "name": "conv2d.0",
        "fullyQualifiedName": "head#conv2d.0",
        "kind": "function",
    }


@pytest.mark.parametrize("source", [None, "net.py:14", Source("no_such_file.py", 14)])
def test_a_finding_whose_line_is_not_known_is_where_the_model_is_defined(source: str | None, net: Source) -> None:
    """A name without a folder, or a file that is not there, is no place."""
    made = make_analysis([record(source=source)], [found(source=source)])
    assert "physicalLocation" not in only(made)["locations"][0]
    location = only(made, net)["locations"][0]
    assert location["physicalLocation"]["region"] == {"startLine": 14}
    assert location["logicalLocations"][0]["name"] == "stem"


def test_numbers_and_the_recording_are_properties() -> None:
    made = make_analysis(findings=[found()])
    assert only(made)["properties"] == {"numbers": {"share": "1/4"}}
    about = {"model": "Net", "input": "1x3x32x48", "recorded": "symbolic", "calls": 7}
    assert sarif(made)["runs"][0]["properties"] == about


@given(analyses())
def test_every_log_is_valid_and_plain_json(analysis: Analysis) -> None:
    log = sarif(analysis, Source(__file__, 1))
    check_log(log)
    assert json.loads(json.dumps(log, allow_nan=False)) == log
    assert all("physicalLocation" in result["locations"][0] for result in log["runs"][0]["results"])
