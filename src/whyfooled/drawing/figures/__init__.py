"""Kinds of figures: curves, bands, bars, boxes and matrices with intervals."""
