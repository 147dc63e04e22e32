"""DICOM: images, slices of a series as volumes, and slides."""
