"""Distances, decisions, evidence and gallery search. Pure numpy; no I/O but reading an evidence file."""
