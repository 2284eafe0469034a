"""The SQL store. Functions take a session, never commit, and return plain values."""
