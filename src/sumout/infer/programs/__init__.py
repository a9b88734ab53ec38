"""Runs of programs: discrete sites enumerated, handlers in place, compared with plain runs."""
