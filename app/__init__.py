"""The Visavis service: everything between an HTTP request and its answer. Knows nothing of training."""

__version__ = "0.1.0"
