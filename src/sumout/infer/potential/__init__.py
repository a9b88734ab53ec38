"""Potentials for Hamiltonian Monte Carlo: continuous sites unconstrained, discrete ones summed out."""
