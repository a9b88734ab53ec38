"""What kind of site a site is, and the validation switch."""

from __future__ import annotations

from sumout.effects.primitives import enable_validation, is_validation_enabled
from sumout.effects.trace import prune_subsample_sites, site_is_factor, site_is_subsample

__all__ = [
    "enable_validation",
    "is_validation_enabled",
    "prune_subsample_sites",
    "site_is_factor",
    "site_is_subsample",
]
