import numpy as np
import pytest

from convscope.render.panels import Bars, Group, Heat, Image, Signed, Text, View, number, shared_range


def test_heat_starts_at_zero_and_ends_at_its_largest_finite_value():
    assert Heat(np.array([[2.0, 7.0, np.nan]])).range() == (0.0, 7.0)
    assert Heat(np.array([[-1.0, 7.0]])).range() == (-1.0, 7.0)
    assert Heat(np.zeros((2, 2))).range() == (0.0, 1.0)
    assert Heat(np.full((2, 2), np.nan)).range() == (0.0, 1.0)


def test_signed_has_zero_in_the_middle():
    assert Signed(np.array([[-1.0, 4.0]])).range() == (-4.0, 4.0)
    assert Signed(np.array([[-9.0, -4.0]])).range() == (-9.0, 9.0)
    assert Signed(np.zeros((1, 1))).range() == (-1.0, 1.0)


def test_shared_range_holds_every_map():
    maps = shared_range((Heat(np.array([[1.0]])), Heat(np.array([[5.0]]))))
    assert [panel.range() for panel in maps] == [(0.0, 5.0), (0.0, 5.0)]
    assert shared_range(()) == ()


def test_panels_refuse_wrong_shapes():
    for wrong in (lambda: Image(np.zeros((4, 4, 3))), lambda: Heat(np.zeros(3)), lambda: Bars(np.zeros((2, 2)))):
        with pytest.raises(ValueError, match="got shape"):
            wrong()


def test_flat_dissolves_groups_in_reading_order():
    a, b, c = Text("a"), Text("b"), Text("c")
    assert View("", (a, Group((b, Group((c,)))))).flat() == (a, b, c)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (3.0, "3"), (1234567.0, "1.23e+06"), (np.nan, "n/a"), (-np.inf, "-inf"), (np.float32(0.5), "0.5")],
)
def test_number_has_three_digits(value: float, text: str):
    assert number(value) == text
