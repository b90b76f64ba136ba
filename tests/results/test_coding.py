import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convscope.errors import BadInput
from convscope.results.coding import decode, encode


def through_json(value: Any) -> Any:
    arrays: dict[str, np.ndarray] = {}
    return decode(json.loads(json.dumps(encode(value, "field", arrays), allow_nan=False)), arrays)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        -0.1,
        "naïve 犬",
        (),
        (1, ("a", 2.5), [1, (2,)]),
        [],
        {},
        {"a": (1,), "$list": [2], "": None},
        math.inf,
        0.1 + 0.2,
        np.float32(0.1),
        np.int8(-3),
        np.bool_(True),
    ],
)
def test_values_come_back_equal_and_of_the_same_type(value: Any):
    back = through_json(value)
    assert back == value
    assert type(back) is type(value)
    assert repr(back) == repr(value)


def test_nan_and_arrays_come_back():
    back = through_json((math.nan, np.float32(np.nan), np.arange(3)))
    assert math.isnan(back[0])
    assert type(back[1]) is np.float32
    np.testing.assert_array_equal(back[2], np.arange(3))


@pytest.mark.parametrize("value", [{1, 2}, Path("a"), object(), {1: 2}, (1, {"a": b"x"}), np.datetime64("2020-01-01")])
def test_what_cannot_be_stored_is_refused_by_name(value: Any):
    with pytest.raises(BadInput, match="the field field"):
        encode(value, "field", {})


def test_unknown_tables_are_refused():
    with pytest.raises(ValueError, match="unknown entry"):
        decode({"$new": 1}, {})
