"""Channels that do not fit each other: (shapes of x and weight, groups, what the error says)."""

CHANNEL_ERRORS: list[tuple[tuple[tuple[int, ...], tuple[int, ...]], int, str]] = [
    (((1, 8, 5, 5), (6, 8, 2, 2)), 3, r"x has 8 channels, but weight \(6, 8, 2, 2\) with groups=3 reads 8 x 3"),
    (((8, 5, 5), (6, 4, 2, 2)), 1, r"x has 8 channels, but weight \(6, 4, 2, 2\) with groups=1 reads 4 x 1"),
    (((1, 6, 5), (4, 2, 2)), 3, r"groups=3 does not divide the 4 output channels of weight \(4, 2, 2\)"),
    (((1, 8, 5, 5), (8, 8, 2, 2)), 0, r"groups=0 does not divide the 8 output channels"),
    (((1, 8, 5), (8, 8, 2, 2)), 1, r"x has 1 channels, but weight"),
    (((8, 5), (8, 8, 2, 2)), 1, r"x has shape \(8, 5\); give 2 spatial axes, as weight \(8, 8, 2, 2\) has"),
    (((1, 1, 8, 5, 5), (8, 8, 2, 2)), 1, r"x has shape \(1, 1, 8, 5, 5\); give 2 spatial axes"),
]
