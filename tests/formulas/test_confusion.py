"""How often "M_2 <= K" is right: counted for every chain of 2 to 4 layers with rates up to 12."""

from __future__ import annotations

from collections import Counter
from itertools import product
from pathlib import Path

import pytest

from formulas.supports import KERNELS, LONGEST, every_chain, has_no_hole
from padrewrite.formulas import max_gap

CARD = Path(__file__).parents[2] / "docs" / "formulas.md"

CHAINS = {
    "any": lambda rates: True,
    "r_1 = 1": lambda rates: rates[0] == 1,
    "r_1 = 1, ascending": lambda rates: rates[0] == 1 and list(rates) == sorted(rates),
}
TOTALS = {"any": 22608, "r_1 = 1": 1884, "r_1 = 1, ascending": 454}
FACTORS = ("K - 1", "2")

# (chains, factor of r_i, K) -> passes and hole-free, passes with holes, fails and hole-free, fails with holes.
EXPECTED = {
    ("any", "K - 1", 2): (157, 443, 233, 21775),
    ("any", "K - 1", 3): (773, 1783, 1714, 18338),
    ("any", "K - 1", 5): (964, 1664, 3955, 16025),
    ("any", "K - 1", 7): (952, 1988, 4978, 14690),
    ("any", "2", 2): (144, 1020, 246, 21198),
    ("any", "2", 3): (773, 1783, 1714, 18338),
    ("any", "2", 5): (1885, 4163, 3034, 13526),
    ("any", "2", 7): (2912, 6880, 3018, 9798),
    ("r_1 = 1", "K - 1", 2): (50, 0, 81, 1753),
    ("r_1 = 1", "K - 1", 3): (213, 0, 531, 1140),
    ("r_1 = 1", "K - 1", 5): (219, 0, 1233, 432),
    ("r_1 = 1", "K - 1", 7): (245, 0, 1484, 155),
    ("r_1 = 1", "2", 2): (45, 52, 86, 1701),
    ("r_1 = 1", "2", 3): (213, 0, 531, 1140),
    ("r_1 = 1", "2", 5): (504, 0, 948, 432),
    ("r_1 = 1", "2", 7): (816, 0, 913, 155),
    ("r_1 = 1, ascending", "K - 1", 2): (35, 0, 0, 419),
    ("r_1 = 1, ascending", "K - 1", 3): (161, 0, 0, 293),
    ("r_1 = 1, ascending", "K - 1", 5): (171, 0, 155, 128),
    ("r_1 = 1, ascending", "K - 1", 7): (178, 0, 221, 55),
    ("r_1 = 1, ascending", "2", 2): (35, 49, 0, 370),
    ("r_1 = 1, ascending", "2", 3): (161, 0, 0, 293),
    ("r_1 = 1, ascending", "2", 5): (300, 0, 26, 128),
    ("r_1 = 1, ascending", "2", 7): (387, 0, 12, 55),
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("chains", CHAINS)
def test_rule_against_truth(chains: str, factor: str, kernel: int) -> None:
    written_for = kernel if factor == "K - 1" else 3
    found = Counter[tuple[bool, bool]]()
    for rates in filter(CHAINS[chains], every_chain(range(2, LONGEST + 1))):
        passes = max_gap(rates, written_for) <= kernel
        found[passes, has_no_hole(tuple(sorted(rates)), kernel)] += 1
    cells = tuple(found[cell] for cell in product((True, False), (True, False)))
    assert cells == EXPECTED[chains, factor, kernel]
    assert sum(cells) == TOTALS[chains]


def test_the_card_prints_this_table() -> None:
    printed = [line for line in CARD.read_text(encoding="utf-8").splitlines() if line.startswith(("| any", "| r_1"))]
    rows = [
        f"| {chains} | {factor} | {kernel} | {' | '.join(map(str, cells))} |"
        for (chains, factor, kernel), cells in EXPECTED.items()
    ]
    assert printed == rows
    assert set(EXPECTED) == set(product(CHAINS, FACTORS, KERNELS))
