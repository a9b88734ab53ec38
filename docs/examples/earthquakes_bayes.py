"""How sure can one be of the states of the earth? The earthquakes again, with Bayesian parameters.

The model of `earthquakes.py` with priors: rates that grow from state to state, and any transition table as likely as
any other. The hidden state of every year is summed out, so that what is left is smooth, and Hamiltonian Monte Carlo
samples it: `infer.potential_fn` makes the potential, and the sampler is Pyro's NUTS. Beside the posterior stand the
maximum-likelihood estimates of Zucchini and MacDonald, *Hidden Markov Models for Time Series* (2009).

    python docs/examples/earthquakes_bayes.py
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pyro
import torch
from earthquakes import read_counts, stationary_distribution
from pyro.infer.mcmc import MCMC, NUTS
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

import sumout
import sumout.distributions as dist
from sumout import infer, poutine
from sumout.errors import MissingExtraError

PICTURE = Path(__file__).parent / "earthquakes_bayes.png"
PUBLISHED = [13.146, 19.721, 29.714]  # earthquakes a year in each state, by maximum likelihood
STATES = len(PUBLISHED)
WARMUP, SAMPLES = 100, 200


def model(counts: Tensor) -> None:
    """A hidden state a year, the steps of the chain taken at once; a count is Poisson given the state."""
    with sumout.plate("states", STATES):
        increments = sumout.sample("increments", dist.Gamma(torch.tensor(2.0).double(), 0.2))
        transition = sumout.sample("transition", dist.Dirichlet(torch.ones(STATES).double()))
    rate = increments.cumsum(-1)
    probs = stationary_distribution(transition)
    for t in sumout.vectorized_markov("years", len(counts)):
        state = sumout.sample(f"state_{t}", dist.Categorical(probs))
        sumout.sample(f"count_{t}", dist.Poisson(rate[state]), obs=counts[t])
        probs = transition[state]


@dataclass(frozen=True)
class Posterior:
    """Samples of the parameters, and how the sampler did."""

    rate: Tensor  # (samples, states)
    transition: Tensor  # (samples, states, states)
    effective: float  # as many independent samples would tell as much of the rate of which they tell least
    evaluations: int
    seconds: float


def sample(counts: Tensor, warmup: int = WARMUP, samples: int = SAMPLES) -> Posterior:
    """Draws from the posterior of the parameters, from one chain that starts at a rough guess."""
    began = time.perf_counter()
    guess = torch.eye(STATES).double() * 0.7 + 0.3 / STATES
    start = infer.init_to_value(
        values={"increments": torch.tensor([12.0, 8.0, 8.0]).double(), "transition": guess}
    )
    potential = infer.potential_fn(model, counts, init=start)
    evaluations = 0

    def counted(params: dict[str, Tensor]) -> Tensor:
        nonlocal evaluations
        evaluations += 1
        return potential(params)

    pyro.set_rng_seed(0)
    kernel = NUTS(potential_fn=counted, transforms=potential.transforms, max_tree_depth=6)
    chain = MCMC(kernel, num_samples=samples, warmup_steps=warmup, initial_params=potential.initial_params)
    chain.run()
    drawn = chain.get_samples()
    rate = drawn["increments"].cumsum(-1)
    effective = pyro.ops.stats.effective_sample_size(rate[None], chain_dim=0, sample_dim=1).min()
    return Posterior(rate, drawn["transition"], float(effective), evaluations, time.perf_counter() - began)


def rates_of_years(counts: Tensor, posterior: Posterior, many: int) -> Tensor:
    """The expected rate of every year under each of some samples, the states summed out: shape (many, years)."""
    found = []
    for i in torch.linspace(0, len(posterior.rate) - 1, many).long().tolist():
        rate = posterior.rate[i]
        increments = torch.cat([rate[:1], rate.diff()])
        given = {"increments": increments, "transition": posterior.transition[i]}
        states = infer.marginals(poutine.condition(model, data=given))(counts)
        found.append(torch.stack([states[f"state_{t}"].probs @ rate for t in range(len(counts))]))
    return torch.stack(found)


# ---------------------------------------------------------------------------------------------- the results


def comparison(posterior: Posterior) -> Table:
    table = Table(title="Earthquakes a year in each state", box=box.SIMPLE)
    for heading in ("state", "posterior mean", "sd", "90% interval", "published", "P(stays)"):
        table.add_column(heading, justify="right")
    for k in range(STATES):
        rate = posterior.rate[:, k]
        low, high = rate.quantile(torch.tensor([0.05, 0.95]).double()).tolist()
        stays = posterior.transition[:, k, k].mean()
        numbers = (f"{rate.mean():.2f}", f"{rate.std():.2f}", f"{low:.1f} to {high:.1f}")
        table.add_row(str(k + 1), *numbers, f"{PUBLISHED[k]:.2f}", f"{stays:.2f}")
    return table


def draw(years: list[int], counts: Tensor, posterior: Posterior, rates: Tensor, to: Path) -> None:
    """The counts with the rate of each year and its uncertainty; the posterior of each state's rate."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", "The picture") from error

    colours = ["#3b6fb6", "#e3a62f", "#c4432b"]
    figure, (series, marginal) = plt.subplots(
        1, 2, figsize=(11, 4.4), sharey=True, width_ratios=(3, 1), layout="constrained"
    )
    low, high = rates.quantile(torch.tensor([0.05, 0.95]).double(), 0).tolist()
    series.plot(years, counts.tolist(), "o", color="0.6", markersize=3, label="earthquakes")
    series.fill_between(
        years, low, high, color="#3b6fb6", alpha=0.3, linewidth=0, label="90% interval of the rate"
    )
    series.plot(
        years, rates.mean(0).tolist(), color="#1f3f6e", linewidth=1.3, label="posterior mean of the rate"
    )
    series.set(xlabel="year", ylabel="earthquakes of magnitude 7+, a year")
    series.set_title("Rate of each year, hidden states and parameters averaged over")
    series.legend(frameon=False)
    for k, colour in enumerate(colours):
        values = posterior.rate[:, k].tolist()
        marginal.hist(values, bins=20, density=True, orientation="horizontal", color=colour, alpha=0.7)
        label = "published" if k == 0 else None
        marginal.axhline(PUBLISHED[k], color="black", linestyle="--", linewidth=1, label=label)
    marginal.set(xlabel="density, 1 / (earthquakes a year)")
    marginal.set_title("Rate of each state")
    marginal.legend(frameon=False)
    to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(to, dpi=110)
    plt.close(figure)


def main(picture: Path = PICTURE, warmup: int = WARMUP, samples: int = SAMPLES) -> Posterior:
    console = Console()
    years, counts = read_counts()
    posterior = sample(counts, warmup, samples)
    console.print(
        f"{samples} samples after {warmup}, {posterior.evaluations} gradients, {posterior.seconds:.0f} s; "
        f"effective samples at least {posterior.effective:.0f}"
    )
    console.print(comparison(posterior))
    rates = rates_of_years(counts, posterior, min(samples, 60))
    draw(years, counts, posterior, rates, picture)
    console.print(f"Rates of years and of states drawn in {picture}")
    return posterior


if __name__ == "__main__":
    main()
