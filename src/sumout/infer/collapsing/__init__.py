"""Programs with conjugate and Gaussian sites integrated out: the handler ``collapse``."""
