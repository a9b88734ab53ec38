"""Continuous sites integrated out: what delayed sites are to each other, and what is left when they are gone.

Reading order: ``sites`` (a collapsed site as it was recorded), ``layout`` (how the elements of delayed sites are
matched with those of the sites that depend on them), ``normal`` and ``gaussian`` (Gaussian sites as quadratic forms),
``component`` and ``assembly`` (those that depend on each other,
integrated by one plan), ``conjugate`` (one site with conjugate
observations), ``common_scale`` (the two together), ``collapse`` (all sites, in groups).
"""
