"""Make bundles from weights that others published."""
