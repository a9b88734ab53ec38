"""The flow of the Nile at Aswan, 1871-1970: a local level model, its level integrated out.

Each year's flow is a level plus noise, and the level wanders. It is the first model of J. Durbin and S. J. Koopman,
*Time Series Analysis by State Space Methods*, 2nd edition (2012), chapter 2, where both variances are estimated by
maximum likelihood: 15099 and 1469.1. Where the level was before the first year nobody knows; what the first flow
tells of it is then all that is known (a diffuse prior), so that the likelihood is that of the flows from 1872 on,
given the first.

    python docs/examples/nile.py
"""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from fitting import Fit, maximum_likelihood
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.distributions import constraints

import sumout
import sumout.distributions as dist
from sumout import infer, poutine
from sumout.errors import MissingExtraError

HERE = Path(__file__).parent
DATA = HERE / "data" / "nile.csv"
PICTURE = HERE / "nile.png"
PUBLISHED = {"noise": 15099.0, "drift": 1469.1}
"""Variances, by Durbin and Koopman (2012), section 2.10."""


def read_flow() -> tuple[Tensor, Tensor]:
    """Years, and the flow in each of them in units of 10^8 cubic metres. Shapes (100,)."""
    with DATA.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return (
        torch.tensor([int(row["year"]) for row in rows]),
        torch.tensor([float(row["flow"]) for row in rows]).double(),
    )


# ------------------------------------------------------------------------------------------------ the model


def scales() -> tuple[Tensor, Tensor]:
    """The standard deviations of the flow about the level, and of the level's steps: what is learned."""
    noise = sumout.param("noise", torch.tensor(100.0).double(), constraint=constraints.positive)
    drift = sumout.param("drift", torch.tensor(50.0).double(), constraint=constraints.positive)
    return noise, drift


def given_scales(flow: Tensor, noise: Tensor, drift: Tensor) -> None:
    """The level of every year; the first flow is what is known of the first level."""
    level = sumout.sample("level_0", dist.Normal(flow[0], noise))
    for t in sumout.markov(range(1, len(flow))):
        level = sumout.sample(f"level_{t}", dist.Normal(level, drift))
        sumout.sample(f"flow_{t}", dist.Normal(level, noise), obs=flow[t])


@poutine.collapse
def model(flow: Tensor) -> None:
    given_scales(flow, *scales())


def levels(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Posterior means and standard deviations of the level in all years, under the params in the store."""
    posterior = infer.marginals(model)(flow)
    found = [posterior[f"level_{t}"] for t in range(len(flow))]
    return (
        torch.stack([each.mean for each in found]).detach(),
        torch.stack([each.stddev for each in found]).detach(),
    )


# ---------------------------------------------------------------------------------------------- the results


def summary(found: Fit) -> Table:
    table = Table(title="The Nile at Aswan, 1871-1970", box=box.SIMPLE)
    for heading in ("variance", "ours", "published"):
        table.add_column(heading, justify="left" if heading == "variance" else "right")
    for name, meaning in (
        ("noise", "of a flow about the level"),
        ("drift", "of the level from year to year"),
    ):
        table.add_row(meaning, f"{found.values[name].square():.1f}", f"{PUBLISHED[name]:.1f}")
    return table


def draw(years: Tensor, flow: Tensor, mean: Tensor, spread: Tensor, to: Path) -> None:
    """The flows, and the level with its uncertainty."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", "The picture") from error

    figure, axis = plt.subplots(figsize=(10, 4.2), layout="constrained")
    axis.fill_between(
        years,
        mean - 1.645 * spread,
        mean + 1.645 * spread,
        color="#3b6fb6",
        alpha=0.22,
        linewidth=0,
        label="level: 90% of its posterior",
    )
    axis.plot(years, mean, color="#3b6fb6", linewidth=2, label="level: posterior mean")
    axis.plot(years, flow, "o", color="0.25", markersize=3, label="flow")
    axis.set(xlabel="year", ylabel="flow, $10^8\\,$m$^3$ a year", xlim=(1870, 1971))
    axis.set_title("The Nile at Aswan: a level that wanders, integrated out")
    axis.legend(frameon=False, loc="upper right")
    to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(to, dpi=110)
    plt.close(figure)


def main(picture: Path = PICTURE) -> Fit:
    console = Console()
    years, flow = read_flow()
    found = maximum_likelihood(model, flow)
    console.print(summary(found))
    console.print(f"Log-likelihood of the flows from 1872 on, given the first: {found.log_likelihood:.4f}")
    console.print(f"{found.evaluations} evaluations in {found.seconds:.1f} s")
    mean, spread = levels(flow)
    draw(years, flow, mean, spread, picture)
    console.print(f"Flow and level drawn in {picture}")
    return found


if __name__ == "__main__":
    main()
