"""Continuous sites integrated out: what delayed sites are to each other, and what is left when they are gone.

Reading order: ``sites`` (a collapsed site as it was recorded), ``layout`` (how the elements of delayed sites are
matched with those of the sites that depend on them), ``normal`` and ``gaussian`` (Gaussian sites as quadratic forms),
``component`` and ``assembly`` (those that depend on each other, integrated by one plan), ``chains`` and ``filters``
(vectorized chains, step by step and by halving), ``moment_matching`` (switching systems, approximately), ``conjugate``
(one site with conjugate observations), ``common_scale`` and ``common_matrix`` (the two together), ``observed`` (what is
checked of data), ``loops`` (subsampled plates that are looped over), ``centering`` and ``digits`` (numbers that are too
large or too different), ``collapse`` (all sites, in groups).
"""
