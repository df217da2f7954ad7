"""Stage 1: features of images, computed once and cached in HDF5."""
