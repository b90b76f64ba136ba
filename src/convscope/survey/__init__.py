"""The format of a survey and its reader. Reads Parquet files; never needs torch."""

from convscope.survey.survey import Survey, SurveyLayer, read_survey

__all__ = ["Survey", "SurveyLayer", "read_survey"]
