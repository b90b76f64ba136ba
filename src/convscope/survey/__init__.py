"""The read side of a scan: everything here reads a survey's Parquet files and never needs torch."""

from convscope.survey.survey import Survey, SurveyLayer, read_survey

__all__ = ["Survey", "SurveyLayer", "read_survey"]
