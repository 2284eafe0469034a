"""The offline half: makes bundles and measures them. Of the service it imports only encoding and matching."""
