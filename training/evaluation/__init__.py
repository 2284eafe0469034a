"""Measure a model on labelled images: trials, error rates, intervals. Numpy only; needs no training extra."""
