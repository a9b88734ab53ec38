"""The bridge: the only code that sees both a trace and a factor graph. Pure: a trace is not changed by it."""

from sumout.lower.lower import lower, lower_site, lower_tensor

__all__ = ["lower", "lower_site", "lower_tensor"]
