"""Kinds of figures, a file each: bands, bars, boxes, curves, histograms, intervals, matrices and tiles of pictures."""
