"""Device batch -> masks: thresholds, pseudo-labels and how well they separate."""

from medsass.labels.labeler import Labeler, Labels

__all__ = ["Labeler", "Labels"]
