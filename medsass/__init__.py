"""medsass: label-free segmentation of medical images. Shards, DALI, one labelling kernel, U-Net."""

__version__ = "0.1.0"
