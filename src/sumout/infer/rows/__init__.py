"""Tables of evidence: read, cut into batches of the memory limit, answered with progress."""
