"""Lines of files: what is shown of them, what leaves the process, and whose lines they are."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import padrewrite as pr
from padrewrite.source import Source, definition, first_outside

TORCH = os.path.dirname(torch.__file__)
OURS = os.path.dirname(pr.__file__)


def test_people_see_the_name_of_the_file() -> None:
    source = Source(__file__, 14)
    assert f"{source}" == source == "test_source.py:14"
    assert (source.path, source.line) == (__file__, 14)


def test_the_path_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Source("nets/a.py", 1).path == str(tmp_path / "nets" / "a.py")


@pytest.mark.parametrize(
    "leave", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s)), lambda s: json.loads(json.dumps(s))]
)
def test_no_folder_leaves_the_process(leave: Callable[[Source], Any]) -> None:
    got = leave(Source(__file__, 14))
    assert (type(got), got) == (str, "test_source.py:14")
    assert b"tests" not in pickle.dumps(Source(__file__, 14))


@pytest.mark.parametrize(
    ("inner", "outside"),
    [
        (os.path.join(TORCH, "nn", "modules", "conv.py"), False),
        (os.path.join(OURS, "nn", "partial.py"), False),
        ("<eval_with_key>.0", False),
        (f"{TORCH}vision{os.sep}resnet.py", True),
        (f"{OURS}_nets{os.sep}resnet.py", True),
    ],
)
def test_whose_line_it_is(inner: str, outside: bool) -> None:
    """A package whose name begins like torch's is not torch."""
    found = first_outside([(inner, 3), (__file__, 5)])
    assert found is not None
    assert (found.path, found.line) == ((inner, 3) if outside else (__file__, 5))
    assert first_outside([(inner, 3)]) == (found if outside else None)


def test_definitions() -> None:
    here = definition(test_definitions)
    assert here is not None
    assert Path(here.path).read_text().splitlines()[here.line - 1] == "def test_definitions() -> None:"
    in_torch = definition(nn.Sequential)
    assert in_torch is not None
    assert in_torch.is_library
    assert not here.is_library
    module = definition(json)
    assert module is not None
    assert (module.path, module.line) == (json.__file__, 1)


@pytest.mark.parametrize("thing", [int, len, 3, type("Made", (), {"__module__": "no_such_module"})])
def test_nothing_says_where_it_is_defined(thing: Any) -> None:
    assert definition(thing) is None


class Net(nn.Module):
    """A call with a line to name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def test_what_is_saved_of_a_model_names_no_folder() -> None:
    x = torch.zeros(1, 3, 8, 8)
    new = pr.transform(Net(), ["partial-padding"], example_inputs=x)
    made = pr.plan(Net(), ["partial-padding"], example_inputs=x)
    texts = [made.to_json(), str(made), pr.report(new).to_json(), str(pr.report(new))]
    found = pr.analyze(Net(), example_inputs=x)
    for text in (*texts, found.to_json(), str(found), found.table(full=True)):
        assert "test_source.py:" in text
        assert os.path.dirname(__file__) not in text
    file = io.BytesIO()
    torch.save(new, file)
    assert b"test_source.py:" in file.getvalue()
    assert os.path.dirname(__file__).encode() not in file.getvalue()
