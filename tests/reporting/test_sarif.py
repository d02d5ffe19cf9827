"""SARIF logs against the standard: the required fields, types and constraints of each object, written down here."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given

from padrewrite.analyses.analysis import Analysis
from padrewrite.analyses.findings import CODES
from padrewrite.reporting.sarif import sarif

from .analyses import analyses, found, make_analysis, record

# Object -> property -> (type or nested object, required), of the properties that are written here at all. The schema of
# SARIF 2.1.0 forbids all other properties of these objects.
SHAPES: dict[str, dict[str, tuple[Any, bool]]] = {
    "log": {"$schema": (str, False), "version": (str, True), "runs": (["run"], True)},
    "run": {
        "tool": ("tool", True),
        "results": (["result"], False),
        "columnKind": (str, False),
        "properties": (dict, False),
    },
    "tool": {"driver": ("driver", True)},
    "driver": {
        "name": (str, True),
        "version": (str, False),
        "semanticVersion": (str, False),
        "rules": (["rule"], False),
    },
    "rule": {
        "id": (str, True),
        "name": (str, False),
        "shortDescription": ("message string", False),
        "help": ("message string", False),
        "defaultConfiguration": ("configuration", False),
    },
    "message string": {"text": (str, True), "markdown": (str, False)},
    "configuration": {"level": (str, False)},
    "result": {
        "ruleId": (str, False),
        "ruleIndex": (int, False),
        "level": (str, False),
        "message": ("message", True),
        "locations": (["location"], False),
        "relatedLocations": (["location"], False),
        "partialFingerprints": (dict, False),
        "properties": (dict, False),
    },
    "message": {"text": (str, True)},
    "location": {
        "id": (int, False),
        "physicalLocation": ("physical", False),
        "logicalLocations": (["logical"], False),
    },
    "physical": {"artifactLocation": ("artifact", True), "region": ("region", False)},
    "artifact": {"uri": (str, True)},
    "region": {"startLine": (int, True)},
    "logical": {"name": (str, False), "fullyQualifiedName": (str, False), "kind": (str, False)},
}
LEVELS = {"none", "note", "warning", "error"}
KINDS = {"function", "member", "module", "namespace", "type"}


def check(value: Any, shape: str = "log") -> None:
    """Asserts the fields of ``value`` and of everything in it."""
    assert isinstance(value, dict), shape
    fields = SHAPES[shape]
    assert set(value) <= set(fields), f"{shape} has no {set(value) - set(fields)}"
    for name, (kind, required) in fields.items():
        assert name in value or not required, f"{shape} needs {name}"
        if name not in value:
            continue
        if isinstance(kind, str):
            check(value[name], kind)
        elif isinstance(kind, list):
            assert isinstance(value[name], list)
            for one in value[name]:
                check(one, kind[0])
        else:
            assert type(value[name]) is kind, f"{shape}.{name}"


def check_log(log: dict[str, Any]) -> None:
    """Shapes, and what the standard says in words."""
    check(log)
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert len({rule["id"] for rule in rules}) == len(rules)
    assert run["columnKind"] in ("unicodeCodePoints", "utf16CodeUnits")
    assert re.fullmatch(r"\d+\.\d+\.\d+([-+].*)?", run["tool"]["driver"]["semanticVersion"])
    for rule in rules:
        assert rule["defaultConfiguration"]["level"] in LEVELS
        assert rule["shortDescription"]["text"].endswith(".")
    for result in run["results"]:
        assert result["level"] in LEVELS
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert all(type(v) is str for v in result["partialFingerprints"].values())
        related = result.get("relatedLocations", [])
        assert len({json.dumps(one, sort_keys=True) for one in related}) == len(related)
        assert [one["id"] for one in related] == list(range(len(related)))
        for location in [*result["locations"], *related]:
            assert {one["kind"] for one in location["logicalLocations"]} <= KINDS
            if "physicalLocation" in location:
                assert location["physicalLocation"]["region"]["startLine"] >= 1
                uri = location["physicalLocation"]["artifactLocation"]["uri"]
                assert re.fullmatch(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-F]{2})+", uri)


def only(analysis: Analysis) -> dict[str, Any]:
    (result,) = sarif(analysis)["runs"][0]["results"]
    return result


def test_a_finding_is_a_result_with_its_place() -> None:
    finding = found("padded-weights", "head.conv", "36% of its weights meet real input", source="net.py:14")
    made = make_analysis([record("head.conv")], [finding])
    check_log(sarif(made))
    result = only(made)
    assert result["ruleId"] == "padded-weights"
    assert result["level"] == "warning"
    assert result["message"]["text"] == "head.conv: 36% of its weights meet real input."
    (location,) = result["locations"]
    physical = location["physicalLocation"]
    assert (physical["artifactLocation"]["uri"], physical["region"]["startLine"]) == ("net.py", 14)
    assert location["logicalLocations"] == [
        {"name": "conv", "fullyQualifiedName": "head.conv", "kind": "member"},
    ]


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


def test_a_finding_about_the_model_points_at_its_sites() -> None:
    finding = found("zero-border", "(model)", sites=("stem", "head#conv2d.0"), cure="partial-padding")
    made = make_analysis([record(), record("head#conv2d.0", source=None)], [finding])
    check_log(sarif(made))
    result = only(made)
    assert result["level"] == "note"
    assert result["message"]["text"] == "What is wrong. Cure: partial-padding."
    assert result["properties"]["cure"] == "partial-padding"
    assert result["locations"] == [{"logicalLocations": [{"name": "Net", "fullyQualifiedName": "Net", "kind": "type"}]}]
    first, second = result["relatedLocations"]
    assert first["physicalLocation"]["region"] == {"startLine": 14}
    assert "physicalLocation" not in second
    assert second["logicalLocations"][0] == {
        "name": "conv2d.0",
        "fullyQualifiedName": "head#conv2d.0",
        "kind": "function",
    }


@pytest.mark.parametrize("source", [None, "net.py", "net.py:0", "net.py:x", ":14", "a b\\c#d.py:14"])
def test_only_a_file_and_a_line_make_a_physical_location(source: str | None) -> None:
    made = make_analysis(findings=[found(source=source)])
    check_log(sarif(made))
    physical = only(made)["locations"][0].get("physicalLocation")
    assert (physical is None) == (source != "a b\\c#d.py:14")
    assert physical is None or physical["artifactLocation"]["uri"] == "a%20b/c%23d.py"


def test_numbers_and_the_recording_are_properties() -> None:
    made = make_analysis(findings=[found()])
    assert only(made)["properties"] == {"numbers": {"share": "1/4"}}
    about = {"model": "Net", "input": "1x3x32x48", "recorded": "symbolic", "calls": 7}
    assert sarif(made)["runs"][0]["properties"] == about


@given(analyses())
def test_every_log_is_valid_and_plain_json(analysis: Analysis) -> None:
    log = sarif(analysis)
    check_log(log)
    assert json.loads(json.dumps(log, allow_nan=False)) == log
