"""Poisson hidden Markov models of a century of earthquakes, fitted by maximum likelihood.

Each year the earth is in one of a few states that nobody sees; the state sets the rate of large earthquakes,
and next year's state depends on this year's. `sumout` sums the states out exactly, so that the parameters are
fitted to the likelihood itself, and reads the states back afterwards. The results are set beside those of
Zucchini and MacDonald, *Hidden Markov Models for Time Series* (2009).

    python docs/examples/earthquakes.py
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from fitting import maximum_likelihood
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch import Tensor
from torch.distributions import constraints

import sumout
import sumout.distributions as dist
from sumout import infer
from sumout.errors import MissingExtraError

HERE = Path(__file__).parent
DATA = HERE / "data" / "earthquakes.csv"
PICTURE = HERE / "earthquakes.png"

# (number of states, does the chain start in its stationary distribution) -> the published -log likelihood
PUBLISHED = {
    (1, True): 391.9189,
    (2, True): 342.3183,
    (3, True): 329.4603,
    (4, True): 327.8316,
    (2, False): 341.8787,
    (3, False): 328.5275,
}
# The odds that a chain stays where it is, at each start of a fit. Four states have several local maxima.
STARTS = {1: (20,), 2: (20,), 3: (20,), 4: (20, 10, 3)}
SHOWN = (3, True)  # the model that is decoded and drawn


def read_counts() -> tuple[list[int], Tensor]:
    """The years and, for each, the number of earthquakes of magnitude 7 or more."""
    with DATA.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [int(row["year"]) for row in rows], torch.tensor([float(row["count"]) for row in rows]).double()


# ------------------------------------------------------------------------------------------------ the model


@dataclass(frozen=True)
class Parameters:
    """Values of the model's parameters: where a fit begins, and what it ends with."""

    rate: Tensor  # (states,) earthquakes a year
    transition: Tensor  # (states, states) probabilities; row = this year, column = next year
    initial: Tensor | None = None  # (states,) probabilities of the first year; None: stationary

    @classmethod
    def start(cls, counts: Tensor, states: int, stationary: bool, odds: float) -> Parameters:
        """Rates at quantiles of the counts, and a chain that stays, at these odds to any other state."""
        middles = (torch.arange(states, dtype=counts.dtype) + 0.5) / states
        weights = 1 + (odds - 1) * torch.eye(states, dtype=counts.dtype)
        uniform = torch.full((states,), 1 / states, dtype=counts.dtype)
        transition = weights / weights.sum(-1, keepdim=True)
        return cls(counts.quantile(middles), transition, None if stationary else uniform)

    def sorted(self) -> Parameters:
        """The same model with its states numbered from the calmest on."""
        order = self.rate.argsort()
        initial = None if self.initial is None else self.initial[order]
        return Parameters(self.rate[order], self.transition[order][:, order], initial)


def stationary_distribution(transition: Tensor) -> Tensor:
    """The distribution p that a step of the chain leaves as it is, from p (I - T + 1) = 1 (all ones)."""
    ones = torch.ones_like(transition)
    identity = torch.eye(len(transition), dtype=transition.dtype)
    return torch.linalg.solve((identity - transition + ones).T, ones[0])


def model(counts: Tensor, start: Parameters) -> None:
    """A hidden state a year, and a count that is Poisson given the state."""
    rate = sumout.param("rate", start.rate, constraint=constraints.positive)
    transition = sumout.param("transition", start.transition, constraint=constraints.simplex)
    if start.initial is None:
        probs = stationary_distribution(transition)
    else:
        probs = sumout.param("initial", start.initial, constraint=constraints.simplex)
    for t in sumout.markov(range(len(counts))):
        state = sumout.sample(f"state_{t}", dist.Categorical(probs), infer={"enumerate": "parallel"})
        sumout.sample(f"count_{t}", dist.Poisson(rate[state]), obs=counts[t])
        probs = transition[state]


# -------------------------------------------------------------------------------------------------- the fit


@dataclass(frozen=True)
class Fitted:
    """A maximum of the likelihood, and what it took to find it."""

    params: Parameters
    loss: float  # -log likelihood
    evaluations: int
    seconds: float


def fit(counts: Tensor, start: Parameters, report: Callable[[float], None] | None = None) -> Fitted:
    """The maximum that is nearest to one starting point."""
    found = maximum_likelihood(model, counts, start, report=report)
    return Fitted(Parameters(**found.values), -found.log_likelihood, found.evaluations, found.seconds)


def fit_all(counts: Tensor, console: Console) -> dict[tuple[int, bool], Fitted]:
    """The best fit of each published model over its starting points, with progress shown on the way."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[loss]}"),
    )
    best: dict[tuple[int, bool], Fitted] = {}
    with Progress(*columns, console=console) as progress:
        for states, stationary in PUBLISHED:
            label = f"{states} state{'s' * (states > 1)}" if stationary else f"{states} states, free start"
            task = progress.add_task(f"{label:20}", total=len(STARTS[states]), loss="")

            def report(log_likelihood: float, task: int = task) -> None:
                progress.update(task, loss=f"-log L = {-log_likelihood:.4f}")

            fits = []
            for odds in STARTS[states]:
                fits.append(fit(counts, Parameters.start(counts, states, stationary, odds), report))
                progress.advance(task)
            best[states, stationary] = min(fits, key=lambda each: each.loss)
            report(-best[states, stationary].loss)
    return best


# ---------------------------------------------------------------------------------------------- the results


def comparison(fits: dict[tuple[int, bool], Fitted], observations: int) -> Table:
    """Our likelihoods beside the published ones, with what model selection makes of them."""
    title = "Poisson hidden Markov models of the earthquakes of 1900-2006"
    table = Table(title=title, box=box.SIMPLE, collapse_padding=True, pad_edge=False)
    table.add_column("states", justify="right")
    table.add_column("start")
    for heading in ("-log L", "published", "diff", "AIC", "BIC", "evals", "s"):
        table.add_column(heading, justify="right")
    for (states, stationary), each in fits.items():
        free = states**2 if stationary else states**2 + states - 1
        published = PUBLISHED[states, stationary]
        table.add_row(
            str(states),
            "stationary" if stationary else "free",
            f"{each.loss:.4f}",
            f"{published:.4f}",
            f"{each.loss - published:+.4f}",
            f"{2 * (each.loss + free):.1f}",
            f"{2 * each.loss + free * math.log(observations):.1f}",
            str(each.evaluations),
            f"{each.seconds:.1f}",
        )
    return table


def decode(counts: Tensor, params: Parameters) -> tuple[Tensor, Tensor]:
    """P(state | all counts), shape (years, states), and the most probable path, shape (years,)."""
    sumout.clear_param_store()
    posterior = infer.marginals(model)(counts, params)
    path = infer.map_assignment(model)(counts, params)
    names = [f"state_{t}" for t in range(len(counts))]
    probs = torch.stack([posterior[name].probs for name in names])
    return probs.detach(), torch.stack([path[name] for name in names])


def stays(path: Tensor) -> list[tuple[int, int, int]]:
    """The path's stretches without a change: first index, last index, state."""
    states = path.tolist()
    changes = [t for t in range(len(states)) if t == 0 or states[t] != states[t - 1]]
    ends = [t - 1 for t in (*changes[1:], len(states))]
    return [(begin, end, states[begin]) for begin, end in zip(changes, ends, strict=True)]


def periods(years: list[int], path: Tensor, rate: Tensor) -> Table:
    """The most probable path, one row for each stay in a state."""
    table = Table(title="Most probable path", box=box.SIMPLE)
    for heading in ("years", "state", "earthquakes a year"):
        table.add_column(heading, justify="right")
    for begin, end, state in stays(path):
        table.add_row(f"{years[begin]}-{years[end]}", str(state + 1), f"{rate[state]:.1f}")
    return table


def draw(years: list[int], counts: Tensor, params: Parameters, probs: Tensor, path: Tensor, to: Path) -> None:
    """The series with the decoded rates above, the posterior of the states below."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", "The picture") from error

    colours = ["#3b6fb6", "#e3a62f", "#c4432b", "#6d4c9f"]
    figure, (series, posterior) = plt.subplots(
        2, 1, figsize=(10, 6), sharex=True, height_ratios=(2, 1), layout="constrained"
    )
    series.plot(years, counts.tolist(), "o-", color="0.6", linewidth=0.8, markersize=3, label="earthquakes")
    series.plot(
        years, (probs @ params.rate).tolist(), color="black", linewidth=1.2, label="posterior mean rate"
    )
    for state, rate in enumerate(params.rate.tolist()):
        here = [(begin, end) for begin, end, each in stays(path) if each == state]
        begins, ends = [years[begin] - 0.5 for begin, _ in here], [years[end] + 0.5 for _, end in here]
        label = f"state {state + 1}: {rate:.1f} a year"
        series.hlines([rate] * len(here), begins, ends, color=colours[state], linewidth=3, label=label)
    series.set_ylabel("earthquakes of magnitude 7+")
    series.set_title(f"Most probable states of a {len(params.rate)}-state Poisson hidden Markov model")
    series.legend(ncols=2, frameon=False)
    posterior.stackplot(years, probs.T.tolist(), colors=colours[: len(params.rate)])
    posterior.set(
        ylabel="P(state | all counts)", xlabel="year", ylim=(0, 1), xlim=(years[0] - 1, years[-1] + 1)
    )
    to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(to, dpi=120)
    plt.close(figure)


def main(picture: Path = PICTURE) -> None:
    console = Console()
    years, counts = read_counts()
    fits = fit_all(counts, console)
    console.print(comparison(fits, len(counts)))
    shown = fits[SHOWN].params.sorted()
    probs, path = decode(counts, shown)
    console.print(periods(years, path, shown.rate))
    draw(years, counts, shown, probs, path, picture)
    console.print(f"Series, decoded rates and posterior drawn in {picture}")
    worst = max(abs(each.loss - PUBLISHED[key]) for key, each in fits.items())
    if worst > 1e-3:
        raise SystemExit(f"A likelihood differs from the published one by {worst:.4f}, more than 0.001.")


if __name__ == "__main__":
    main()
