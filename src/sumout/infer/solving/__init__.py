"""From a factor graph to a result: planned, whole or in slices, over processes, prepared for repeated questions."""
