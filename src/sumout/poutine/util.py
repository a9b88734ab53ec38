"""What kind of site a site is, and the validation switch."""

from __future__ import annotations

from sumout.effects.primitives import enable_validation, is_validation_enabled
from sumout.effects.trace import (
    all_escape,
    discrete_escape,
    enum_extend,
    mc_extend,
    prune_subsample_sites,
    site_is_factor,
    site_is_subsample,
)

__all__ = [
    "all_escape",
    "discrete_escape",
    "enable_validation",
    "enum_extend",
    "is_validation_enabled",
    "mc_extend",
    "prune_subsample_sites",
    "site_is_factor",
    "site_is_subsample",
]
