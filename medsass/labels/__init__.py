"""Pseudo-labels: a batch of images on a device -> masks, thresholds and how well these separate."""

from medsass.labels.labeler import Labeler, Labels
from medsass.labels.normalise import Normalise

__all__ = ["Labeler", "Labels", "Normalise"]
