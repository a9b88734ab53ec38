"""NumPyro's hidden Markov model of order 1, its step of training compiled; imported where it is installed only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.control_flow import scan
from numpyro.contrib.funsor import enum, log_density
from numpyro.distributions import biject_to, constraints
from numpyro.handlers import mask
from torch import Tensor

CONSTRAINTS = {"probs_x": constraints.simplex, "probs_y": constraints.unit_interval}


def compiled_step(
    data: Tensor, alive: Tensor | None, transition: Tensor, emission: Tensor
) -> Callable[[], float]:
    """A whole step of training, loss, gradients and optimizer, compiled as one function.

    Args:
        data: sequences, steps and outputs.
        alive: which steps each sequence has, ``(steps, sequences, 1)``.
        transition: probabilities, ``(states, states)``.
        emission: probabilities, ``(states, outputs)``.
    """
    sequences, steps, outputs = data.shape
    seen = np.asarray(data.transpose(0, 1))
    here = np.ones((steps, sequences, 1), dtype=bool) if alive is None else np.asarray(alive)
    first = jnp.asarray(transition.numpy()), jnp.asarray(emission.numpy())

    def model() -> None:
        probs_x = numpyro.param("probs_x", first[0], constraint=CONSTRAINTS["probs_x"])
        probs_y = numpyro.param("probs_y", first[1], constraint=CONSTRAINTS["probs_y"])

        def step(x: Any, given: Any) -> tuple[Any, None]:
            y, there = given
            with numpyro.plate("sequences", sequences, dim=-2):
                x = numpyro.sample("x", dist.Categorical(probs_x[x]), infer={"enumerate": "parallel"})
                # A masked latent site is counted once for each of its states.
                with numpyro.plate("outputs", outputs, dim=-1), mask(mask=there):
                    numpyro.sample("y", dist.Bernoulli(probs_y[x.squeeze(-1)]), obs=y)
            return x, None

        scan(step, jnp.zeros((sequences, 1), dtype=int), (seen, here))

    # Its SVI loses terms of such a scan; its log-density does not, and is what its own examples use.
    constrained = {name: biject_to(each) for name, each in CONSTRAINTS.items()}
    adam = numpyro.optim.Adam(1e-3)

    def loss(params: dict[str, Any]) -> Any:
        values = {name: constrained[name](each) for name, each in params.items()}
        return -log_density(enum(model, first_available_dim=-3), (), {}, values)[0]

    @jax.jit
    def update(state: Any) -> tuple[Any, Any]:
        value, grads = jax.value_and_grad(loss)(adam.get_params(state))
        return adam.update(grads, state), value

    start = {"probs_x": first[0], "probs_y": first[1]}
    state = [adam.init({name: constrained[name].inv(each) for name, each in start.items()})]

    def whole() -> float:
        state[0], value = update(state[0])
        return float(value)

    return whole
