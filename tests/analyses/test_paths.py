"""Forwards that branch on sizes: what is said of other sizes is said of those that take the recorded path."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import padrewrite as pr
from padrewrite.analyses.layout import Origin
from padrewrite.analyses.paths import Paths
from padrewrite.ops.sizes import print_size
from padrewrite.recording.execute import execute, state_of

Path = list[object]


class Net(nn.Module):
    """``body(layer, x, path)`` appends each choice that it makes to ``path``."""

    def __init__(self, body: Callable[[nn.Conv2d, Tensor, Path], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.body = body
        self.path: Path = []

    def forward(self, x: Tensor) -> Tensor:
        self.path = []
        return self.body(self.conv, x, self.path)

    def choices(self, width: int) -> Path | None:
        """What it chooses at a width; None if it does not run."""
        with torch.no_grad():
            try:
                self(torch.zeros(1, 1, 24, width))
            except RuntimeError:
                return None
        return self.path


def chosen(path: Path, answer: object) -> bool:
    path.append(bool(answer))
    return bool(answer)


def evens(conv: nn.Conv2d, x: Tensor, path: Path) -> Tensor:
    return conv(F.pad(x, (0, 1)) if chosen(path, x.shape[-1] % 2) else x)


def bounds(conv: nn.Conv2d, x: Tensor, path: Path) -> Tensor:
    x = conv(x)
    return x + 1 if chosen(path, x.shape[-1] > 40) or chosen(path, x.shape[-1] < 17) else x


def both(conv: nn.Conv2d, x: Tensor, path: Path) -> Tensor:
    return bounds(conv, evens(conv, x, path), path)


def halves(conv: nn.Conv2d, x: Tensor, path: Path) -> Tensor:
    small = F.max_pool2d(conv(x), 2)
    return small if chosen(path, small.shape[-1] % 3 == 1) else conv(small)


def fitted(conv: nn.Conv2d, x: Tensor, path: Path) -> Tensor:
    """A decoder that pads what came out smaller than its skip."""
    up = F.interpolate(F.max_pool2d(conv(x), 4), scale_factor=4.0)
    missing = x.shape[-1] - up.shape[-1]
    return x + (F.pad(up, (0, missing)) if chosen(path, missing != 0) else up)


def later(conv: nn.Conv2d, x: Tensor, path: Path) -> Tensor:
    return conv(x) if chosen(path, (x.shape[-1] + 3) // 4 > 5) else x


def straight(conv: nn.Conv2d, x: Tensor, path: Path) -> Tensor:
    """It asks what is so at every size."""
    return conv(x) if chosen(path, x.shape[-1] >= 1) else x


BODIES = [evens, bounds, both, halves, fitted, later, straight]


@pytest.mark.parametrize("width", [24, 27])
@pytest.mark.parametrize("body", BODIES)
def test_conditions_hold_where_the_forward_chooses_alike(body: Callable[..., Tensor], width: int) -> None:
    model = Net(body).eval()
    graph = pr.record(model, example_inputs=torch.zeros(1, 1, 24, width))
    assert graph.how == "symbolic"
    paths, recorded = Paths(graph.conditions), model.choices(width)
    sizes = range(4, 150)
    assert [paths.takes(Origin(0, 3), n) for n in sizes] == [model.choices(n) == recorded for n in sizes]
    assert paths.takes(Origin(0, 2), 5), "nothing was asked about the height"
    period, residues = paths.residues(Origin(0, 3))
    assert paths.others() == []
    least, greatest = paths.bounds(Origin(0, 3)) or (0, None)
    taken = [n for n in sizes if n % period in residues and least <= n <= (greatest or n)]
    assert taken == [n for n in sizes if model.choices(n) == recorded]


def test_which_answers_are_told() -> None:
    x = torch.zeros(1, 1, 24, 24)
    assert pr.analyze(Net(straight).eval(), example_inputs=x).conditions == ()
    found = pr.analyze(Net(both).eval(), example_inputs=x)
    assert found.conditions is not None
    assert [eval(text, {"input_0_size_3": 24}) for text in found.conditions] == [True] * 3
    words = "holds for multiples of 2 from 17 to 40 along input dimension 3"
    assert any(note.endswith(words) for note in found.notes)
    assert "as large as the input for every input size on the recorded path" in str(found)
    assert "path" not in str(pr.analyze(nn.Conv2d(1, 1, 3, padding=1).eval(), example_inputs=x))


def test_questions_of_torch_are_none_of_the_forwards() -> None:
    layers = [nn.Conv2d(4, 4, 3, padding=1), nn.MaxPool2d(2), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(3)]
    model = nn.Sequential(*layers, nn.Upsample(scale_factor=1.5, mode="bilinear")).eval()
    assert pr.record(model, example_inputs=torch.zeros(1, 4, 33, 40)).conditions == ()


def requirement(model: nn.Module, width: int) -> list[str]:
    found = pr.analyze(model, example_inputs=torch.zeros(1, 1, 24, width))
    return [f.message for f in found.of("size-requirement")]


def test_sizes_that_the_forward_makes_fit_are_no_requirement() -> None:
    """It runs at every width, on two paths; nothing makes the height fit."""
    model = Net(fitted).eval()
    assert all(model.choices(n) is not None for n in range(4, 60))
    height = "the size along input dimension 2 needs to be a multiple of 4, for #add.0 to join equal sizes"
    assert requirement(model, 24) == requirement(model, 27) == [height]


def test_a_requirement_on_the_path_stays() -> None:
    def body(conv: nn.Conv2d, x: Tensor, path: Path) -> Tensor:
        x = evens(conv, x, path)
        return x + F.interpolate(F.max_pool2d(x, 4), scale_factor=4.0)

    model = Net(body).eval()
    (message,) = requirement(model, 24)
    assert "along input dimensions 2 and 3 needs to be a multiple of 4" in message
    runs = [n for n in range(8, 60) if n % 2 == 0 and model.choices(n) is not None]
    assert runs == [n for n in range(8, 60) if n % 4 == 0]


def test_even_sizes_are_looked_for_on_the_path() -> None:
    """A stride of 2 over 24 padded pixels pads unevenly; the odd sizes at which it would not take another path."""

    def body(conv: nn.Conv2d, x: Tensor, path: Path) -> Tensor:
        return F.conv2d(F.pad(x, (0, 1)) if chosen(path, x.shape[-1] % 2) else x, conv.weight, stride=2, padding=1)

    found = pr.analyze(Net(body).eval(), example_inputs=torch.zeros(1, 1, 25, 24)).of("uneven-padding")
    assert [f.message for f in found] == ["at size 24 along input dimension 3, 1 strided window pads unevenly"]
    plain = pr.analyze(nn.Conv2d(1, 1, 3, stride=2, padding=1), example_inputs=torch.zeros(1, 1, 25, 24))
    assert "none would at 23 or 25" in plain.of("uneven-padding")[0].message


def test_conditions_that_compare_sizes_are_told_as_they_are() -> None:
    def body(conv: nn.Conv2d, x: Tensor, path: Path) -> Tensor:
        return conv(x) if chosen(path, x.shape[-1] < x.shape[-2]) else x

    note = pr.analyze(Net(body).eval(), example_inputs=torch.zeros(1, 1, 25, 24)).notes[-1]
    assert note.endswith("holds for input_0_size_3 < input_0_size_2")


def test_bounds_beyond_the_sizes_that_are_tried_are_told_as_they_are() -> None:
    def body(conv: nn.Conv2d, x: Tensor, path: Path) -> Tensor:
        return conv(x) if chosen(path, x.shape[-1] < 9000) else x

    note = pr.analyze(Net(body).eval(), example_inputs=torch.zeros(1, 1, 25, 24)).notes[-1]
    assert note.endswith("holds for input_0_size_3 < 9000")


CROPPED: dict[str, tuple[Callable[[Tensor], Tensor], tuple[str, ...]]] = {
    "to a number beyond": (lambda x: x[..., :40], ("input_0_size_3 < 40",)),
    "from the end": (lambda x: x[..., 2:-3], ()),
    "the last ones, of fewer": (lambda x: x[..., -40:], ("(-1)*input_0_size_3 > -40",)),
    "a pool that rounds up": (lambda x: F.max_pool2d(x, 2, 2, 1, ceil_mode=True), ()),
    "an average that rounds up": (lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True), ()),
    "a dilated pool that rounds up": (lambda x: F.max_pool2d(x, 2, 3, 1, dilation=2, ceil_mode=True), ()),
}


@pytest.mark.parametrize("width", [24, 27])
@pytest.mark.parametrize("name", CROPPED)
def test_sizes_that_follow_from_crops_and_pools_hold_where_the_recording_does(name: str, width: int) -> None:
    """The model computes with the size of what was cropped; the recorded graph must, too."""
    crop, conditions = CROPPED[name]

    def body(conv: nn.Conv2d, x: Tensor, path: Path) -> Tensor:
        small = crop(x)
        return conv(F.pad(small, (0, -small.shape[-1] % 5)))

    model = Net(body).eval()
    graph = pr.record(model, example_inputs=torch.zeros(1, 1, 24, width))
    assert graph.how == "symbolic"
    assert graph.nodes is not None
    assert tuple(map(print_size, graph.conditions)) == conditions
    state, compared = state_of(model, graph.constants), 0
    for n in range(8, 80):
        x = torch.randn(1, 1, 24, n)
        if graph.holds_at([x.shape]):
            with torch.no_grad():
                assert torch.equal(execute(graph.nodes, state, [x])[0], model(x)), n
            compared += 1
    assert compared == (32 if conditions else 72)


def same_sides(conv: nn.Conv2d, x: Tensor, path: Path) -> Tensor:
    y = conv(x)
    return y if chosen(path, x.shape[-1] == x.shape[-2]) and chosen(path, x.shape[-1] > 12) else y[:, :, 1:-1]


def test_a_condition_that_makes_two_sizes_one_is_kept() -> None:
    """Afterwards torch writes one for the other, and finds them equal always."""
    model = Net(same_sides).eval()
    graph = pr.record(model, example_inputs=torch.zeros(1, 1, 24, 24))
    recorded, sizes = model.choices(24), range(8, 40)
    assert [graph.holds_at([(1, 1, 24, n)]) for n in sizes] == [model.choices(n) == recorded for n in sizes]
    assert not graph.holds_at([(1, 1, 9, 9)])


SHARED: dict[str, Callable[[Tensor], tuple[Tensor, ...]]] = {
    "a crop of a larger image": lambda x: (x[..., 2:26, 2:26],),
    "the same twice": lambda x: (x, x),
    "halves of a batch": lambda x: tuple(torch.cat([x, x]).chunk(2)),
    "a map and its own mask": lambda x: (x, x[:, :1]),
}


@pytest.mark.parametrize("name", SHARED)
def test_inputs_that_share_memory_ask_nothing(name: str) -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, *maps: Tensor) -> Tensor:
            return sum((self.conv(x) for x in maps), torch.zeros(()))

    graph = pr.record(Sum().eval(), example_inputs=SHARED[name](torch.zeros(1, 1, 32, 32)))
    assert (graph.how, graph.conditions) == ("symbolic", ())


def test_a_forward_that_catches_a_failing_call_is_recorded_on_the_real_inputs() -> None:
    def body(conv: nn.Conv2d, x: Tensor, path: Path) -> Tensor:
        y = F.interpolate(F.max_pool2d(conv(x), 2), scale_factor=2.0)
        try:
            return x + y
        except RuntimeError:
            return x + F.interpolate(y, size=x.shape[2:])

    found = pr.analyze(Net(body).eval(), example_inputs=torch.zeros(1, 1, 24, 27))
    assert (found.how, found.conditions) == ("real inputs", None)
    assert any("failed and the forward went on" in note for note in found.notes)


def test_where_positions_run_along_a_dimension_without_a_symbol_conditions_are_not_known() -> None:
    unbatched = pr.analyze(Net(evens).eval(), example_inputs=torch.zeros(1, 24, 24))
    assert unbatched.how == "symbolic"
    assert unbatched.conditions is None
    assert "on the recorded path" in str(unbatched)


def test_a_decoder_that_asks_for_its_output_size() -> None:
    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.up = nn.Conv2d(1, 1, 3, 2, 1), nn.ConvTranspose2d(1, 1, 3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.up(self.down(x), output_size=x.shape[2:])

    (output,) = pr.analyze(Decoder(), example_inputs=torch.zeros(1, 1, 24, 27)).outputs
    assert output.unchanged


def test_a_size_that_a_crop_settles_for_smaller_ones_too_is_no_number() -> None:
    """It runs up to where the crop ends, at 24; the size that it resizes to must follow."""

    def body(conv: nn.Conv2d, x: Tensor, path: Path) -> Tensor:
        y = torch.cat([x[..., :24], conv(x)], 1)
        return y + F.interpolate(y.mean((2, 3), keepdim=True), size=y.shape[2:])

    model = Net(body).eval()
    assert [model.choices(n) is not None for n in (20, 24, 25)] == [True, True, False]
    assert pr.record(model, example_inputs=torch.zeros(1, 1, 24, 24)).how == "real inputs"
