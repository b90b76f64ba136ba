"""Analyses of surveys, one file each: exemplars, class maps, detectors, filter health. They read surveys and never need torch."""
