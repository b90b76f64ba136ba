"""What a survey's manifest must hold before anything in it is used: types and bounds. Further entries are kept as they are."""

from __future__ import annotations

from typing import Any

from convscope.preprocessing import MOST_SIDE, RESAMPLING

_COUNT = {"type": "integer", "minimum": 0, "maximum": 2**53}
_TEXT = {"type": "string"}
_NAMES = {"type": "array", "items": _TEXT}
_NUMBERS = {"type": "array", "items": {"type": "number"}}
_SIDE = {"type": "integer", "minimum": 1, "maximum": MOST_SIDE}


def table(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """The schema of an object with these entries, and any others."""
    return {"type": "object", "required": list(required), "properties": required | (optional or {})}


SCHEMA = table(
    {
        "images": _COUNT,
        "skipped": _COUNT,
        "shards": _COUNT,
        "summary_only": {"type": "boolean"},
        "top": _COUNT,
        "votes_per_image": _COUNT,
        "layers": _NAMES | {"minItems": 1},
        "labels": _NAMES,
        "inputs": table(
            {
                "size": {"type": "array", "items": _SIDE, "minItems": 2, "maxItems": 2},
                "mean": _NUMBERS,
                "std": _NUMBERS,
                "interpolation": {"enum": list(RESAMPLING)},
                "crop": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1},
                "classes": _NAMES | {"type": ["array", "null"]},
            }
        ),
        "network": table({"name": _TEXT, "weights": {"type": ["string", "null"]}, "weights_hash": _TEXT}),
        "parameters": table({}, {"draft": {"type": "boolean"}}),
    },
    {"plan": {"type": "object"}},
)
"""The entries that readers use; :mod:`convscope.survey.schema` says what they mean."""
