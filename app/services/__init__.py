"""One use case a file. Services own transactions; they know neither HTTP nor SQL."""
