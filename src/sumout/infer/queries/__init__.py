"""Exact queries, one a module; ``question`` is what they have in common."""
