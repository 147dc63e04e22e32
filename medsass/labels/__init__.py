"""Pseudo-labels: a batch of images on a device -> masks, thresholds and how well these separate."""

from medsass.labels.cuda import Labels, Normalise
from medsass.labels.labeler import Labeler

__all__ = ["Labeler", "Labels", "Normalise"]
