"""When did the Nile fall? Two regimes, and a level that tends to one or the other: a switching linear system.

A hidden Markov chain says which of two regimes holds; the level of the Nile's flow moves towards that regime's mean,
with noise of its own, and each year's flow is the level plus noise. Level and flow are normal given all regimes, of
which there are 2 ** 100 sequences: exact inference has a Gaussian for each. So in each year the mixture over all but
the last regime is replaced by one Gaussian of the same mass, mean and covariance: the generalised pseudo-Bayes filter
(Kim, *Dynamic linear models with Markov-switching*, 1994; Murphy, *Switching Kalman filters*, 1998). Everything else
is exact; for the first years, whose sequences can be written out, both are compared.

The change itself is known: G. W. Cobb, *The problem of the Nile: conditional solution to a change-point problem*,
Biometrika 65 (1978), dates it between 1898, the last year of the old level, and 1899, the first of the new one.

    python docs/examples/switching.py
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import NamedTuple

import torch
from nile import read_flow
from rich.console import Console
from torch import Tensor

import sumout
import sumout.distributions as dist
from sumout import infer, poutine
from sumout.errors import MissingExtraError

HERE = Path(__file__).parent
PICTURE = HERE / "switching.png"
FIRST_OF_THE_NEW = 1899  # published
MEANS = torch.tensor([1100.0, 850.0]).double()  # of the regimes, 10^8 cubic metres a year
STAYS = torch.tensor([0.98, 0.98]).double()
PULL = 0.8  # of the way to the mean, in a year
DRIFT, NOISE = 40.0, 120.0  # standard deviations of the level's step, and of a flow about the level


class Reading(NamedTuple):
    """What is found out: the log-evidence, P(new regime) in each year, and the level given the likeliest regimes."""

    log_evidence: float
    new: Tensor
    mean: Tensor
    spread: Tensor


# ------------------------------------------------------------------------------------------------ the model


def model(flow: Tensor) -> None:
    level, new = MEANS[0], None
    for t in sumout.markov(range(len(flow))):
        one_again = (
            torch.tensor(0.5).double() if new is None else torch.where(new == 1, STAYS[1], 1 - STAYS[0])
        )
        new = sumout.sample(f"new_{t}", dist.Bernoulli(one_again))
        mean = MEANS[new.long()]
        level = sumout.sample(f"level_{t}", dist.Normal(level + PULL * (mean - level), DRIFT))
        sumout.sample(f"flow_{t}", dist.Normal(level, NOISE), obs=flow[t])


matched = poutine.collapse(model, approximate="moment_matching")


def read(flow: Tensor) -> Reading:
    """The regimes by moment matching; then, the likeliest of them given, the level, exactly."""
    found = infer.marginals(matched)(flow)
    years = range(len(flow))
    new = torch.stack([found[f"new_{t}"].mean for t in years])
    likeliest = {f"new_{t}": (new[t] > 0.5).double() for t in years}
    levels = infer.marginals(poutine.collapse(poutine.condition(model, likeliest)))(flow)
    each = [levels[f"level_{t}"] for t in years]
    mean, spread = torch.stack([one.mean for one in each]), torch.stack([one.stddev for one in each])
    return Reading(float(found.log_evidence), new, mean, spread)


def error(flow: Tensor) -> tuple[float, float]:
    """Log-evidence of a few years by moment matching, and the exact one, from all sequences of regimes."""
    paths = []
    for path in itertools.product((0.0, 1.0), repeat=len(flow)):
        regimes = {f"new_{t}": torch.tensor(each).double() for t, each in enumerate(path)}
        paths.append(infer.log_evidence(poutine.collapse(poutine.condition(model, regimes)))(flow))
    return float(infer.log_evidence(matched)(flow)), float(torch.stack(paths).logsumexp(0))


# ---------------------------------------------------------------------------------------------- the results


def draw(years: Tensor, flow: Tensor, found: Reading, to: Path) -> None:
    """Flow and level, and the probability of the new regime in each year."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", "The picture") from error

    figure, (series, switch) = plt.subplots(
        2, 1, figsize=(10, 5.2), sharex=True, height_ratios=(2.4, 1), layout="constrained"
    )
    low, high = found.mean - 1.645 * found.spread, found.mean + 1.645 * found.spread
    series.fill_between(
        years, low, high, color="#3b6fb6", alpha=0.22, linewidth=0, step="mid", label="level: 90%"
    )
    series.step(
        years,
        found.mean,
        where="mid",
        color="#3b6fb6",
        linewidth=2,
        label="level, given the likeliest regimes",
    )
    series.plot(years, flow, "o", color="0.25", markersize=3, label="flow")
    series.set_ylabel("flow, $10^8\\,$m$^3$ a year")
    series.set_title("Two regimes of the Nile, by moment matching")
    series.legend(frameon=False, loc="upper right")
    switch.fill_between(years, found.new, color="#c4432b", linewidth=0, step="mid")
    published = FIRST_OF_THE_NEW - 0.5
    switch.axvline(published, color="black", linestyle="--", linewidth=1)
    switch.text(published - 0.6, 0.72, "published: between 1898 and 1899", ha="right")
    switch.set(xlabel="year", ylabel="P(new regime)", ylim=(0, 1), xlim=(1870, 1971))
    to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(to, dpi=110)
    plt.close(figure)


def main(picture: Path = PICTURE) -> Reading:
    console = Console()
    years, flow = read_flow()
    found = read(flow)
    first = int((found.new > 0.5).int().argmax())
    console.print(f"The new regime holds from {int(years[first])} on; published: {FIRST_OF_THE_NEW}")
    console.print(f"Log-evidence of the hundred years: {found.log_evidence:.4f}")
    ours, all_paths = error(flow[26:32])
    console.print(f"Of 1897 to 1902: {ours:.6f} by moment matching, {all_paths:.6f} by all 64 sequences")
    draw(years, flow, found, picture)
    console.print(f"Drawn in {picture}")
    return found


if __name__ == "__main__":
    main()
