"""Arrays whose axes have meanings: NumPy, HDF5 and OME-Zarr."""
