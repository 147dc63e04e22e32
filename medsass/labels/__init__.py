"""Device batch -> masks: thresholds, pseudo-labels and how well they separate."""

from medsass.labels.labeler import Labeler, Labels
from medsass.labels.normalise import Normalise

__all__ = ["Labeler", "Labels", "Normalise"]
