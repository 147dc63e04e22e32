"""Volumes: NIfTI, NRRD and MetaImage, cut into slices."""
