"""The table of formulations: what it chooses, what it refuses, where it comes from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from padrewrite.errors import SettingsError
from padrewrite.ops.formulations import DEFAULT, FORMULATIONS, Row, choose, merged, read_table, table_json

TUNED = (
    Row("cpu", "any", 0, "embedded"),
    Row("cpu", "channels_last", 8, "crops"),
    Row("cpu", "any", 64, "concat"),
    Row("cuda", "any", 0, "crops"),
)


@pytest.mark.parametrize(
    ("channels", "last", "wanted"),
    [(7, False, "embedded"), (8, False, "embedded"), (8, True, "crops"), (64, True, "concat"), (200, False, "concat")],
)
def test_the_row_of_most_channels_counts(channels: int, last: bool, wanted: str) -> None:
    x = torch.zeros(1, 4, 5, 6)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    assert choose(x, channels, TUNED) == wanted
    assert choose(x, channels, tuple(reversed(TUNED))) == wanted


def test_of_as_many_channels_the_row_of_the_format_counts() -> None:
    table = (Row("cpu", "any", 8, "concat"), Row("cpu", "channels_last", 8, "crops"))
    x = torch.zeros(1, 8, 5, 6)
    for rows in (table, tuple(reversed(table))):
        assert choose(x, 8, rows) == "concat"
        assert choose(x.contiguous(memory_format=torch.channels_last), 8, rows) == "crops"


def test_measured_rows_replace_those_of_their_device_and_format() -> None:
    measured = (Row("cpu", "channels_last", 0, "concat"), Row("cpu", "channels_last", 32, "crops"))
    table = merged(TUNED, measured)
    assert table == (
        Row("cpu", "any", 0, "embedded"),
        Row("cpu", "any", 64, "concat"),
        Row("cpu", "channels_last", 0, "concat"),
        Row("cpu", "channels_last", 32, "crops"),
        Row("cuda", "any", 0, "crops"),
    )
    assert merged(table, measured) == table


def test_what_the_table_does_not_know_is_computed_by_concatenation() -> None:
    assert choose(torch.zeros(1, 4, 5, device="meta"), 4, TUNED) == "concat"
    assert {choose(torch.zeros(1, 4, 5), channels) for channels in (1, 64, 512)} == {"concat"}


def test_tables_are_written_and_read() -> None:
    assert read_table(table_json(TUNED), "here") == TUNED
    assert {row.formulation for row in DEFAULT} <= set(FORMULATIONS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"here is no table of formulations: .* Write one by bench --tune"),
        ('{"schema": "padrewrite.formulations/0", "rows": []}', r"its schema is 'padrewrite.formulations/0'"),
        ('{"schema": "padrewrite.formulations/1", "rows": [{"device": "cpu"}]}', r"Row lacks layout"),
        (table_json([Row("cpu", "any", 0, "fft")]), r"here names 'fft' for layout 'any'; known are concat"),
    ],
)
def test_damaged_tables(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_table(text, "here")


def test_the_environment_names_a_table(tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    file.write_text(table_json([Row("cpu", "any", 0, "crops")]), encoding="utf-8")
    code = (
        "import torch; from padrewrite.fuzzing.counting import Dispatched; from padrewrite.ops import symmetric_conv\n"
        "with Dispatched() as seen: symmetric_conv(torch.zeros(1, 4, 5, 5), torch.zeros(2, 4, 2, 2))\n"
        "print(seen.convolutions)"
    )
    for path, wanted in ((file, "4\n"), (tmp_path / "none.json", "")):
        environment = {**os.environ, "PADREWRITE_FORMULATIONS": str(path)}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.stdout == wanted
        assert ("PADREWRITE_FORMULATIONS" in done.stderr) is (wanted == "")
