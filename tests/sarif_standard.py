"""SARIF 2.1.0: the required fields, types and constraints of each object that is written here, and its words."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

# Object -> property -> (type or nested object, required), of the properties that are written here at all. The schema of
# SARIF 2.1.0 forbids all other properties of these objects.
SHAPES: dict[str, dict[str, tuple[Any, bool]]] = {
    "log": {"$schema": (str, False), "version": (str, True), "runs": (["run"], True)},
    "run": {
        "tool": ("tool", True),
        "originalUriBaseIds": ("bases", False),
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
    "artifact": {"uri": (str, True), "uriBaseId": (str, False)},
    "bases": {"%SRCROOT%": ("artifact", True)},
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
                check_place(location["physicalLocation"], run["originalUriBaseIds"])


def check_place(physical: dict[str, Any], bases: dict[str, Any]) -> None:
    """It resolves to a file that has the line."""
    artifact = physical["artifactLocation"]
    uri = artifact["uri"]
    assert re.fullmatch(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-F]{2})+", uri)
    if "uriBaseId" in artifact:
        base = bases[artifact["uriBaseId"]]["uri"]
        assert urlsplit(base).scheme == "file"
        assert base.endswith("/")
        assert not urlsplit(uri).scheme
        assert ".." not in uri.split("/")
        assert not uri.startswith("/")
        uri = base + uri
    assert urlsplit(uri).scheme == "file"
    lines = Path(url2pathname(urlsplit(uri).path)).read_text(encoding="utf-8").splitlines()
    assert 1 <= physical["region"]["startLine"] <= len(lines)
