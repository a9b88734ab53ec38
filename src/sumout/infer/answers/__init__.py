"""The records that queries answer with, and how they are read out of a sweep."""
