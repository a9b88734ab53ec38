"""Samples: of discrete sites from their exact posterior, of whole programs, and weighted ones."""
