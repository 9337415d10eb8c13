"""What a plot shows of few numbers: one point is a dot, a bar of nothing has its number."""

from typing import Any

from tasks.plots import INK, LABELLED, draw


def drawn(kind: str, series: dict[str, list[list[Any]]]) -> str:
    """The SVG of such a plot."""
    return draw({"title": "t", "x": "x", "y": "y", "kind": kind, "series": series}).decode()


def test_a_line_of_one_point_is_a_dot() -> None:
    """Only it is filled: a line of two has no dots."""
    one, two = (drawn("line", {"loss": points}) for points in ([[1, 2.0]], [[1, 2.0], [2, 3.0]]))
    assert f"fill: {INK[0]}" in one and f"fill: {INK[0]}" not in two


def test_few_bars_have_their_numbers() -> None:
    """Those of nothing, too; many would stand over one another."""
    few = drawn("bar", {"share": [["10%", 0.0], ["30%", 0.125]]})
    assert ">0</text>" in few and ">0.125</text>" in few
    many = drawn("bar", {"share": [[f"{number}", 0.123] for number in range(LABELLED + 1)]})
    assert ">0.123</text>" not in many
