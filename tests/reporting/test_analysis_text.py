"""Analyses as text: the layout, the grouping, and the 100 columns."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from rich.cells import cell_len

from padrewrite.analyses.analysis import Analysis
from padrewrite.analyses.size_forms import SizeForm, identity, reduced
from padrewrite.analyses.support import Reached
from padrewrite.ops.conv import Conv
from padrewrite.ops.window import Window
from padrewrite.reporting.analysis import MODEL, NAMED, SHOWN, analysis_parts, analysis_text, runs
from padrewrite.reporting.layout import plain_text
from padrewrite.reporting.sites import count_text, phase_text

from .analyses import HALF, analyses, chain, found, make_analysis, node, phase, record, unknown

BODY = [f"body.{i}" for i in range(3)]
MIXED = make_analysis(
    [record(), *(record(name, source="net.py:20", receptive_field=(35, 35)) for name in BODY)],
    [
        found("half-pixel-shift", "body.0", "every output sits +1/2 px off", cure="symmetric-even"),
        found("half-pixel-shift", "body.1", "every output sits +1/2 px off", cure="symmetric-even"),
        found("misaligned-merge", "head#cat", "cat joins branches that sit 1 input px apart", source="net.py:31"),
        found(
            "zero-border", MODEL, "4 of 4 convolutions pad with zeros", cure="partial-padding", sites=("stem", *BODY)
        ),
    ],
    chains=(chain(BODY, ["stem"]),),
    notes=("1 batch norm",),
)

EXPECTED = """\
padrewrite 0.1.0  Net  recorded: symbolic, 7 calls, equal to eager  input 1x3x32x48
convolutions  parameters   MACs  output stride  receptive field  input  warnings  notes
           4         896  332 k              2            35x35  32x48         3      1
----------------------------------------------------------------------------------------------------
warning 2  half-pixel-shift  every output sits +1/2 px off
                         at  body.0, body.1 (net.py:20)
                       cure  symmetric-even (no such pass is installed)
warning    misaligned-merge  cat joins branches that sit 1 input px apart
                         at  head#cat (net.py:31)
note       zero-border       4 of 4 convolutions pad with zeros
                         at  stem (net.py:14), body.0 (net.py:20), body.1 (net.py:20) and 1 more
                       cure  partial-padding
docs/findings/ has a page for each: what it means, when it is harmless, what cures it

  dilated chain     rates    M_2  kernel  covers  score    networks
body.0 to body.2  3 convolutions
  alone             2(x3)      2       3  holes   1.000  2 per axis
  with 1 before it  1,2(x3)    2       3  all     0.333           1
M_2 should be at most the kernel; score: 0 even, 1 split into networks that never meet
note       1 batch norm"""


def test_everything_has_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("padrewrite.reporting.analysis.known_passes", lambda: {"partial-padding": object})
    assert analysis_text(MIXED) == EXPECTED
    assert str(MIXED) == EXPECTED


HALF_TWICE = SizeForm(4, (0, 0, 4, 4))
CROPPED = SizeForm(1, (-2,))
LATER, SOMEWHERE = replace(identity(), since=9), replace(identity(), since=None)
NOT_KNOWN = "1x21x32x48: its size for other inputs is not known"
OUTPUTS = [
    ({}, "1x21x32x48: as large as the input for every input size on the recorded path"),
    (
        {"size": (identity(), LATER)},
        "1x21x32x48: as large as the input for every input size of at least 9 on the recorded path",
    ),
    (
        {"size": (SOMEWHERE, LATER)},
        "1x21x32x48: as large as the input for all but small input sizes on the recorded path",
    ),
    ({"size": (HALF, HALF)}, "1x21x32x48: floor((H + 1)/2) along each axis"),
    (
        {"size": (HALF_TWICE,) * 2},
        "1x21x32x48: 4*floor((H + 2)/4) along each axis; unchanged only if H mod 4 = 0",
    ),
    ({"size": (HALF_TWICE, CROPPED)}, "1x21x32x48: 4*floor((H + 2)/4) x (W - 2); unchanged only if H mod 4 = 0"),
    ({"size": (CROPPED, None)}, NOT_KNOWN),
    ({"ended": "flip reverses dimension 2"}, NOT_KNOWN),
    ({"shape": (1, 2, 9), "dims": (2,), "size": (CROPPED,)}, "1x2x9: H - 2"),
]


@pytest.mark.parametrize(("fields", "line"), OUTPUTS)
def test_a_line_tells_of_the_outputs_size(fields: dict[str, Any], line: str) -> None:
    lines = analysis_text(make_analysis(outputs=(node(**fields),))).splitlines()
    assert lines[3] == f"output     {line}"
    assert lines[4] == "-" * 100


def test_of_outputs_without_positions_nothing_is_said() -> None:
    flat = node(shape=(1, 1000), dims=(), inputs=(), size=(), phase=(), receptive_field=())
    assert "output  " not in analysis_text(make_analysis(outputs=(flat,))).replace("output stride", "")
    both = analysis_text(make_analysis(outputs=(flat, node(), node(shape=(1, 4)), node()), conditions=()))
    assert "1x21x32x48: as large as the input for every input size; 2 more outputs" in both


def test_a_field_that_is_not_the_whole_truth_is_a_lower_bound() -> None:
    assert " 3x3 " in analysis_text(make_analysis([record()]))
    assert ">=" not in analysis_text(make_analysis([record()]))
    assert " >= 3x3 " in analysis_text(make_analysis([record(), unknown("lost")]))
    other = record("other", receptive_field=(None, None), field_ended="windows differ")
    assert "\n  no receptive field: windows differ\n" in analysis_text(make_analysis([record(), other]), full=True)


def test_no_findings_is_said_plainly() -> None:
    assert "\nNo findings." in analysis_text(make_analysis())
    assert "docs/findings" not in analysis_text(make_analysis())


def test_without_inputs_the_text_claims_nothing() -> None:
    text = analysis_text(make_analysis([unknown()], how="module tree", calls=None, input=None), full=True)
    assert text.splitlines()[0].endswith("recorded: module tree only  input none")
    assert text.splitlines()[2].split() == ["1", "224", *["-"] * 4, "0", "0"]
    assert "No findings in the windows alone. Everything else needs example inputs." in text
    assert text.splitlines()[-1].startswith("stem  k3 s2 p1 d1  3>8")  # no line of numbers that are not known


def test_a_recording_that_was_not_executed_says_so() -> None:
    text = analysis_text(make_analysis(notes=("not executed: tensors are on meta",)))
    assert "symbolic, 7 calls, not executed" in text.splitlines()[0]


def test_warnings_come_first_whatever_the_order() -> None:
    text = analysis_text(make_analysis(findings=[found("zero-border"), found("gridding"), found("zero-border")]))
    assert [line.split("  ")[0] for line in text.splitlines()[4:] if line.startswith(("note", "warning"))] == [
        "warning",
        "note 2",
    ]


def test_different_messages_of_one_code_are_listed_and_cut() -> None:
    findings = [found("padded-weights", "stem", f"{i}% of its weights") for i in range(SHOWN + 3)]
    short, full = (analysis_text(make_analysis(findings=findings), full) for full in (False, True))
    assert f"warning {SHOWN + 3}" in short
    assert short.count("% of its weights") == SHOWN
    assert "and 3 more: ask for the full table" in short
    assert full.count("% of its weights") == SHOWN + 3
    assert "more" not in full.split("---\n")[1]


def test_sites_of_one_message_are_named_and_cut() -> None:
    names = [f"layer{i}" for i in range(NAMED + 2)]
    made = make_analysis([record(n) for n in names], [found("padded-weights", n) for n in names])
    assert f"{', '.join(names[:NAMED])} and 2 more (net.py:14)" in " ".join(analysis_text(made).split())
    assert f"{', '.join(names)} (net.py:14)" in " ".join(analysis_text(made, full=True).split())


def test_a_call_that_is_no_convolution_gets_no_foreign_line() -> None:
    """The finding's own line belongs to its site alone."""
    finding = found("uneven-padding", MODEL, sites=("stem", "pool#max_pool2d"), source="net.py:14")
    assert "at  stem (net.py:14), pool#max_pool2d\n" in analysis_text(make_analysis(findings=[finding]))


def test_cures_that_differ_stand_with_their_message() -> None:
    findings = [found(message=m, cure=c) for m, c in [("one", "partial-padding"), ("two", None)]]
    lines = [line.split() for line in analysis_text(make_analysis(findings=findings)).splitlines()[4:9]]
    assert [line[-1] for line in lines] == ["one", "(net.py:14)", "partial-padding", "two", "(net.py:14)"]


def test_the_coarsest_stride_is_told_where_it_is_not_the_last() -> None:
    records = [record(), record("deep", phase=(phase(8),) * 2), record("up", phase=(phase(1),) * 2)]
    assert "1 (coarsest 8)" in analysis_text(make_analysis(records))


def test_receptive_field_and_strides_per_axis() -> None:
    line = analysis_text(make_analysis([record(receptive_field=(3, 9), phase=(phase(2), phase(1)))])).splitlines()[2]
    assert "2, 1" in line
    assert "3x9" in line


@pytest.mark.parametrize(("given", "shown"), [("1x3x32x48", "32x48"), ("1x3x32x48, 2x7", "-"), ("no tensors", "-")])
def test_the_inputs_size_is_shown_where_there_is_one_input(given: str, shown: str) -> None:
    assert analysis_text(make_analysis(input=given)).splitlines()[2].split()[-3] == shown


def test_chains_along_one_axis_name_it() -> None:
    text = analysis_text(make_analysis(chains=(chain(["stem", "stem"], axes=(1,)),)))
    assert "2 convolutions along dimension 3" in text
    assert "before it" not in text


def test_full_has_two_lines_for_every_convolution() -> None:
    records = [record(), record("deep", context=True, phase=(phase(16, "-7/2"), phase(16)), source=None)]
    lines = analysis_text(make_analysis(records), full=True).splitlines()
    place = lines.index("stem  k3 s2 p1 d1  3>8  net.py:14")
    assert lines[place - 1].split() == [
        *("input", "->", "output", "output", "of", "H", "sits", "at", "field", "weights", "padding", "q", "MACs")
    ]
    numbers = ["2i", "+", "1/2", "3x3", "96.6", "%", "10.2", "%", "0.980", "82.9", "k"]
    assert lines[place + 1].split() == ["32x48", "->", "16x24", "floor((H", "+", "1)/2)", *numbers]
    assert lines[place + 2] == "deep  k3 s2 p1 d1  3>8"
    assert "  16i - 7/2,  " in lines[place + 3]
    assert lines[place + 4].split() == ["16i"]
    assert " 3x3+ " in lines[place + 3]


def test_full_tells_holes_and_where_reasoning_ended() -> None:
    records = [record(reached_of={0: Reached((13, 13), 49)}), record("deep", ended="flip reverses dimensions [-1]")]
    text = analysis_text(make_analysis(records), full=True)
    assert "\n  the middle output depends on 49 of the 13x13 input pixels it spans\n" in text
    assert "\n  not followed: flip reverses dimensions [-1]\n" in text


@given(analyses())
def test_everything_fits_100_columns(analysis: Analysis) -> None:
    for full in (False, True):
        text = analysis_text(analysis, full)
        assert max(map(cell_len, text.splitlines())) <= 100
        assert not [c for c in text if not c.isprintable() and c != "\n"]


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_is_kept_too(width: int) -> None:
    lines = plain_text(analysis_parts(MIXED, width, full=True), width).splitlines()
    assert max(map(cell_len, lines)) <= width


def test_own_words_are_ascii_without_control_codes() -> None:
    text = analysis_text(MIXED, full=True)
    assert text.isascii()
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "-"),
        (0, "0"),
        (999, "999"),
        (1000, "1.00 k"),
        (999_499, "999 k"),
        (999_500, "1.00 M"),
        (23_456_789, "23.5 M"),
        (893_000_000, "893 M"),
        (999_950_000, "1.00 G"),
        (4_120_000_000_000, "4.12 T"),
    ],
)
def test_counts_have_three_digits(count: int | None, text: str) -> None:
    assert count_text(count) == text


@pytest.mark.parametrize(
    ("scale", "offset", "text"),
    [(1, 0, "i"), (4, 0, "4i"), (1, "1/2", "i + 1/2"), (8, "-7/2", "8i - 7/2"), ("472/479", 0, "(472/479)i")],
)
def test_phases_read_as_a_formula(scale: object, offset: object, text: str) -> None:
    assert phase_text(phase(scale, offset)) == text
    assert phase(scale, offset).scale == Fraction(scale)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("rates", "text"), [((2,), "2"), ((2, 2), "2(x2)"), ((1, 1, 2), "1(x2),2"), ((1, 2, 1), "1,2,1")]
)
def test_equal_rates_are_written_once(rates: tuple[int, ...], text: str) -> None:
    assert runs(rates) == text


def test_volumes_are_not_cut() -> None:
    """Where the axes differ, each has its line; what is still too long is folded."""
    sizes = (reduced(1, (-1,)), identity(), reduced(4, (0, 1, 1, 2, 2, 3, 9)))
    op = Conv(Window((2, 4, 6), (1, 2, 3), (1, 1, 1), (0, 1, 2), (0, 1, 2)), 3, 8, 1, True, ("zeros",) * 3)
    shown = record(
        op=op,
        input_size=(117, 140, 164),
        output_size=(116, 120, 121),
        size=sizes,
        phase=(phase("16/17", "8/17"), phase(1), phase("100/131", "-65/128")),
        receptive_field=(102, 205, 112),
    )
    text = analysis_text(make_analysis([shown]), full=True)
    assert "..." not in text
    assert max(map(len, text.splitlines())) <= 100
    for wanted in ("117x140x164 ->", "116x120x121", "H - 1,", "H,", "(16/17)i + 8/17,", "i,", "(100/131)i -", "65/128"):
        assert wanted in text, text
