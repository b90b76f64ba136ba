"""Questions asked of a survey, one file each: exemplars, class maps, detectors. Reads surveys; never needs torch."""
