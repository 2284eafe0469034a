"""Self-contained HTML pages that commands write."""
