"""Training objectives: a guide and a model run as a pair, their ELBOs, and SVI."""
