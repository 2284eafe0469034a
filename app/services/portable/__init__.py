"""Embeddings in files that any tool can read: JSON lines, Parquet and npz.

Each carries the contract of the embeddings: which model made them, so that they are only ever compared with
its own. ``docs/imports.md`` describes the columns.
"""
