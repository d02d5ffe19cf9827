"""Plans and reports as text: the layout, the grouping, and the 100 columns."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from hypothesis import given
from rich.cells import cell_len
from rich.console import Console

from padrewrite.analyses.costs import Cost
from padrewrite.checks.verification import Verification
from padrewrite.plans import Plan
from padrewrite.reporting import Report, plan_text, report_text, verification_text

from .plans import PARTIAL, SPEC, decide, make_plan, plans, show, verifications

RESNET = make_plan(
    [
        decide("layer4.0.conv2", source="resnet.py:147"),
        decide("layer4.1.conv2", source="resnet.py:147"),
        *(decide(f"layer{i}.conv1", "kept", "unpadded", "a 1x1 kernel sees none") for i in range(36)),
        decide("head.up", "refused", "transposed", "a transposed convolution pads no input"),
    ],
    notes=("53 batch norms keep statistics computed before the rewrite",),
)

EXPECTED = """\
padrewrite 0.1.0  ResNet  recorded: symbolic, 175 calls, equal to eager  input 1x3x224x224
pass             matches  rewritten  kept  refused  contract  params    MACs  field  checkpoints
partial-padding       39          2    36        1  interior      +0  +0.0 %    427  as they are
----------------------------------------------------------------------------------------------------
layer4.0.conv2  k3 s1 p1 d1 -> k3 s1 p1 d1 partial  interior(1..1, 1..1)  resnet.py:147
layer4.1.conv2  k3 s1 p1 d1 -> k3 s1 p1 d1 partial  interior(1..1, 1..1)  resnet.py:147
kept 36  unpadded  a 1x1 kernel sees none: layer0.conv1, layer1.conv1, layer2.conv1 and 33 more
head.up  refused: transposed  a transposed convolution pads no input  net.py:14"""

NOTE = "\nnote       53 batch norms keep statistics computed before the rewrite"


def rows(text: str, word: str) -> list[str]:
    return [line for line in text.splitlines() if word in line]


def test_plan_reads_as_a_table() -> None:
    assert plan_text(RESNET) == EXPECTED + NOTE
    assert str(RESNET) == plan_text(RESNET)


def test_report_adds_the_evidence_before_the_notes() -> None:
    found = Verification((show("layer4.0.conv2", error=3e-13), show("end to end", vacuous=True, note="field 427")))
    verify = "\nverify     1 check held, float64, worst error 3.0e-13"
    vacuous = "\n           VACUOUS interior, end to end: field 427"
    assert str(Report((RESNET,), found)) == EXPECTED + verify + vacuous + NOTE


def test_report_without_evidence_says_so() -> None:
    assert "not verified" in str(Report((RESNET,)))
    assert "was not rewritten" in str(Report(()))


@pytest.mark.parametrize(
    ("how", "notes", "words"),
    [
        ("symbolic", (), "symbolic, 175 calls, equal to eager"),
        ("real inputs", (), "real inputs, 175 calls, equal to eager"),
        ("symbolic", ("not executed: tensors are on meta",), "symbolic, 175 calls, not executed"),
        ("module tree", (), "module tree only"),
        ("dynamo", (), "dynamo, 175 calls"),
    ],
)
def test_header_claims_no_more_than_was_checked(how: str, notes: tuple[str, ...], words: str) -> None:
    header = plan_text(make_plan([decide("a")], how=how, notes=notes)).splitlines()[0]
    assert f"recorded: {words}  input" in header


def test_cost_of_several_passes_stands_in_one_row() -> None:
    text = plan_text(make_plan([decide("a")], [decide("a", "kept")], specs=["one", "two{x=3}"], macs=(100, 467)))
    assert rows(text, "together")[0].split() == ["together", "+0", "+367.0", "%", "427", "as", "they", "are"]
    assert [line.split()[0] for line in text.splitlines()[2:4]] == ["one", "two"]
    assert "two{x=3}" in text.splitlines()
    assert len(rows(text, "-" * 100)) == 2


def test_what_weights_lost_is_a_note_of_the_pass_where_no_contract_bounds_it() -> None:
    lost = [decide(f"a{i}", contract="shape", weight_error=error) for i, error in enumerate((0.25, 0.91234, 0.5))]
    bounded = [decide("b", contract="bounded(0.7)", weight_error=0.7), decide("c", "kept")]
    note = "note       partial-padding: relative error of 3 weights, worst 0.91, median 0.5: fine-tune"
    for told in (plan_text(make_plan(lost + bounded)), str(Report((make_plan(lost + bounded),)))):
        assert note in told.splitlines()
    assert "relative error" not in plan_text(make_plan(bounded))


@pytest.mark.parametrize("name", ["boundary-refinement", "cascade"])
def test_names_of_passes_stand_on_one_line(name: str) -> None:
    plan = make_plan([decide("a")], specs=[name])
    costs = (Cost(12_345_678, 10**9, 427), Cost(2_345_678, 10**8, 1427))
    summary = replace(plan.passes[0], before=costs[0], after=costs[1], matches=1000, rewritten=1000)
    (row,) = rows(plan_text(replace(plan, passes=(summary,))), name)
    assert row.split()[:6] == [name, "1000", "1000", "0", "0", "interior"]
    assert row.endswith("-10,000,000  -90.0 %   1427  as they are" if name == "cascade" else "1427 as they are")


def test_unknown_cost_is_a_dash() -> None:
    assert "%" not in plan_text(make_plan([decide("a")], macs=None))


def test_long_names_are_never_cut() -> None:
    """Names that share both ends would become one name if their middle were left out."""
    names = [f"backbone.encoder.stage{i}.block.residual.branch.body.conv.conv" for i in range(30)]
    text = plan_text(make_plan([decide(name) for name in names]))
    assert all(name in text for name in names)
    assert "..." not in text


def test_more_sites_than_fit_are_grouped_by_their_change() -> None:
    wide = {**SPEC, "dilation": (2, 2), "padding": ((2, 2), (2, 2))}
    near = [decide(f"near{i}") for i in range(40)]
    far = [decide(f"far{i}", before=wide, after={**wide, "padding_mode": "partial"}) for i in range(5)]
    text = plan_text(make_plan(near + far))
    assert len(rows(text, "rewritten 40")) == len(rows(text, "rewritten 5")) == 1
    assert "near0 (net.py:14), near1 (net.py:14), near2 (net.py:14) and 37 more" in " ".join(text.split())
    assert len(text.splitlines()) < 12


def test_every_refusal_is_named_with_its_reason() -> None:
    refusals = [decide(f"up{i}", "refused", "transposed", f"reason {i}") for i in range(30)]
    text = plan_text(make_plan([decide("a"), *refusals]))
    assert all(rows(text, f"up{i} ")[0].endswith(f"reason {i}   net.py:14".replace("   ", "  ")) for i in range(10, 30))


def test_full_table_has_a_row_for_every_site() -> None:
    names = [f"layer{i}.conv" for i in range(200)]
    text = plan_text(make_plan([decide(name, "kept", "unpadded", "no padding") for name in names]), full=True)
    assert [line.split()[0] for line in text.splitlines()[4:]] == names


def test_a_pass_that_ran_twice_shows_its_own_decisions() -> None:
    text = plan_text(make_plan([decide("a")], [decide("a", "kept", "already-partial", "it is partial")]))
    first, second = text.split("-" * 100)[1:]
    assert "k3 s1 p1 d1 ->" in first
    assert "already-partial" not in first
    assert "k3 s1 p1 d1 ->" not in second
    assert "already-partial" in second


@given(plans())
def test_everything_fits_100_columns(plan: Plan) -> None:
    for full in (False, True):
        for text in (plan_text(plan, full), report_text(Report((plan, plan)), full)):
            assert max(map(cell_len, text.splitlines())) <= 100
            assert not [c for c in text if not c.isprintable() and c != "\n"]


@given(plans(), verifications())
def test_reports_with_evidence_fit_too(plan: Plan, found: Verification) -> None:
    for text in (str(Report((plan,), found)), verification_text(found)):
        assert max(map(cell_len, text.splitlines())) <= 100


def test_plain_text_is_ascii_without_control_codes() -> None:
    text = str(Report((RESNET,), Verification((show(), show("end to end", vacuous=True)))))
    assert text.isascii()
    assert "\x1b" not in text


def test_rich_renders_in_colour_within_the_terminal() -> None:
    console = Console(file=io.StringIO(), width=72, force_terminal=True, color_system="standard")
    console.print(Report((RESNET,), Verification((show(),))))
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    assert "\x1b[" in printed
    plain = Console(file=io.StringIO(), width=72)
    plain.print(Report((RESNET,)))
    assert isinstance(plain.file, io.StringIO)
    assert max(map(cell_len, plain.file.getvalue().splitlines())) <= 72


def test_markup_in_names_is_shown_as_it_is() -> None:
    plan = make_plan([decide("[bold]x[/bold]:smile:")], model="[red]Net")
    console = Console(file=io.StringIO(), width=100)
    console.print(Report((plan,)))
    assert isinstance(console.file, io.StringIO)
    for text in (plan_text(plan), console.file.getvalue()):
        assert "[bold]x[/bold]:smile:" in text
        assert "[red]Net" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "k3 s1 p1 d1 -> k3 s1 p1 d1 partial"),
        ({"padding_mode": "circular"}, "-> k3 s1 p1 d1 circular"),
        ({"padding_mode": ("zeros", "circular")}, "-> k3 s1 p1 d1 zeros|circular"),
        ({"scale": "sqrt"}, "-> k3 s1 p1 d1 partial(sqrt)"),
        ({"kernel_size": (1, 3), "padding": ((0, 0), (1, 1))}, "-> k1x3 s1 p0x1 d1 partial"),
        ({"padding": ((0, 1), (0, 1))}, "-> k3 s1 p(0,1) d1 partial"),
        ({"stride": (2, 1)}, "-> k3 s2x1 p1 d1 partial"),
        ({"groups": 4}, "-> k3 s1 p1 d1 g4 partial"),
        ({"groups": 8}, "-> k3 s1 p1 d1 depthwise partial"),
        ({"transposed": True}, "-> transposed k3 s1 p1 d1 partial"),
        ({"out_channels": 32}, "k3 s1 p1 d1 c8>8 -> k3 s1 p1 d1 partial c8>32"),
    ],
)
def test_convolutions_in_few_characters(changes: dict[str, object], words: str) -> None:
    assert words in plan_text(make_plan([decide("a", after={**PARTIAL, **changes})]))
