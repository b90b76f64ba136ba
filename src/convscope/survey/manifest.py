"""What a survey's manifest must hold before anything in it is used: types and bounds. Further entries are kept as they are."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Len
from pydantic import BaseModel

MOST_SIDE = 8192
"""Longest side of a network's input that a survey may ask its images to be resized to."""
_Count = Annotated[int, Ge(0), Le(2**53)]
_Side = Annotated[int, Ge(1), Le(MOST_SIDE)]


class _Inputs(BaseModel):
    size: Annotated[list[_Side], Len(2, 2)]
    mean: list[float]
    std: list[float]
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"]
    crop: Annotated[float, Gt(0), Le(1)] | None
    classes: list[str] | None


class _Network(BaseModel):
    name: str
    weights: str | None
    weights_hash: str


class _Parameters(BaseModel):
    draft: bool = False


class SurveyManifest(BaseModel):
    """The entries that readers use; :mod:`convscope.survey.schema` says what they mean."""

    images: _Count
    skipped: _Count
    shards: _Count
    summary_only: bool
    top: _Count
    votes_per_image: _Count
    layers: Annotated[list[str], Len(1)]
    labels: list[str]
    inputs: _Inputs
    network: _Network
    parameters: _Parameters
    plan: dict[str, Any] = {}
