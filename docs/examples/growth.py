"""Booms, busts and how calm they are: a factorial hidden Markov model of the growth of the United States.

Two things that nobody sees set each quarter's growth: whether the economy goes slowly or briskly, and whether times
are calm or rough. Each is a Markov chain that knows nothing of the other; what is seen depends on both. That is a
factorial hidden Markov model (Ghahramani and Jordan, *Factorial hidden Markov models*, 1997). Both chains are summed
out of 202 quarters, the parameters climb the exact likelihood, and the chains are read back.

Beside them stand the recessions as dated by the National Bureau of Economic Research, and the first quarter of 1984,
from which on growth was calmer: M. McConnell and G. Perez-Quiros, *Output fluctuations in the United States: what has
changed since the early 1980's?*, American Economic Review 90 (2000). There, too, mean and variance switch
independently.

    python docs/examples/growth.py
"""

from __future__ import annotations

import csv
import math
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
from sumout import infer
from sumout.errors import MissingExtraError

HERE = Path(__file__).parent
DATA = HERE / "data" / "us_gdp.csv"
PICTURE = HERE / "growth.png"
CALM_SINCE = 1984.0  # the published break: first quarter of 1984
# Peak and trough of each recession, as year and month, from the business cycle dates of the NBER.
RECESSIONS = [
    ((1960, 4), (1961, 2)),
    ((1969, 12), (1970, 11)),
    ((1973, 11), (1975, 3)),
    ((1980, 1), (1980, 7)),
    ((1981, 7), (1982, 11)),
    ((1990, 7), (1991, 3)),
    ((2001, 3), (2001, 11)),
    ((2007, 12), (2009, 6)),
]


def read_growth() -> tuple[Tensor, Tensor]:
    """When each quarter begins, in years; growth of real product in percent a year. Shapes (202,)."""
    with DATA.open(newline="") as file:
        rows = list(csv.DictReader(file))
    when = torch.tensor([int(row["year"]) + (int(row["quarter"]) - 1) / 4 for row in rows]).double()
    product = torch.tensor([float(row["realgdp"]) for row in rows]).double()
    return when[1:], 400 * product.log().diff()


# ------------------------------------------------------------------------------------------------ the model


def model(growth: Tensor) -> None:
    """Growth is normal: its mean by the phase (0 slow, 1 brisk), its spread by the times (0 calm, 1 rough)."""
    mean = sumout.param("mean", torch.tensor([-2.0, 4.0]).double())
    spread = sumout.param("spread", torch.tensor([1.5, 5.0]).double(), constraint=constraints.positive)
    phase_stays = sumout.param(
        "phase_stays", torch.tensor([0.7, 0.9]).double(), constraint=constraints.unit_interval
    )
    times_stay = sumout.param(
        "times_stay", torch.tensor([0.95, 0.95]).double(), constraint=constraints.unit_interval
    )
    phase = times = None
    for t in sumout.markov(range(len(growth))):
        phase = sumout.sample(f"phase_{t}", dist.Bernoulli(one_again(phase_stays, phase)))
        times = sumout.sample(f"times_{t}", dist.Bernoulli(one_again(times_stay, times)))
        normal = dist.Normal(mean[phase.long()], spread[times.long()])
        sumout.sample(f"growth_{t}", normal, obs=growth[t])


def one_again(stays: Tensor, before: Tensor | None) -> Tensor:
    """The probability of state 1 after a state; in the first quarter either is as likely."""
    return torch.tensor(0.5).double() if before is None else torch.where(before == 1, stays[1], 1 - stays[0])


def steady(growth: Tensor) -> None:
    """The same without the second chain: one spread for all times."""
    mean = sumout.param("mean", torch.tensor([-2.0, 4.0]).double())
    spread = sumout.param("spread", torch.tensor(3.0).double(), constraint=constraints.positive)
    phase_stays = sumout.param(
        "phase_stays", torch.tensor([0.7, 0.9]).double(), constraint=constraints.unit_interval
    )
    phase = None
    for t in sumout.markov(range(len(growth))):
        phase = sumout.sample(f"phase_{t}", dist.Bernoulli(one_again(phase_stays, phase)))
        sumout.sample(f"growth_{t}", dist.Normal(mean[phase.long()], spread), obs=growth[t])


def read_back(growth: Tensor) -> tuple[Tensor, Tensor]:
    """P(slow | all data) and P(rough | all data) in each quarter, under the params in the store."""
    posterior = infer.marginals(model)(growth)
    quarters = range(len(growth))
    slow = torch.stack([1 - posterior[f"phase_{t}"].mean for t in quarters])
    rough = torch.stack([posterior[f"times_{t}"].mean for t in quarters])
    return slow.detach(), rough.detach()


# ---------------------------------------------------------------------------------------------- the results


def in_recession(when: Tensor) -> Tensor:
    """Whether each quarter lies between a peak and a trough, by the month in its middle."""
    month = (when * 12).round() + 1  # of the quarter's second month, counted from zero
    inside = torch.zeros(len(when), dtype=torch.bool)
    for (year, peak), (end, trough) in RECESSIONS:
        inside |= (month > 12 * year + peak - 1) & (month <= 12 * end + trough - 1)
    return inside


def turned_calm(when: Tensor, rough: Tensor) -> float:
    """The first quarter from which on calm times were likelier than rough ones for at least ten years."""
    calm = rough < 0.5
    for t in range(len(when) - 40):
        if bool(calm[t : t + 40].all()):
            return float(when[t])
    return math.nan


def summary(fits: dict[str, Fit], observations: int) -> Table:
    """Does the second chain pay for its parameters?"""
    table = Table(title="Growth of the United States, 1959-2009", box=box.SIMPLE)
    for heading in ("model", "log likelihood", "parameters", "BIC", "evaluations", "s"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for name, found in fits.items():
        free = sum(value.numel() for value in found.values.values())
        bic = free * math.log(observations) - 2 * found.log_likelihood
        numbers = (f"{found.log_likelihood:.3f}", str(free), f"{bic:.1f}", str(found.evaluations))
        table.add_row(name, *numbers, f"{found.seconds:.1f}")
    return table


def parameters(found: Fit) -> Table:
    table = Table(title="The two chains", box=box.SIMPLE)
    for heading in ("state", "growth, % a year", "lasts, quarters"):
        table.add_column(heading, justify="left" if heading == "state" else "right")
    values = found.values
    for k, name in enumerate(("slow", "brisk")):
        table.add_row(name, f"mean {values['mean'][k]:.2f}", f"{1 / (1 - values['phase_stays'][k]):.1f}")
    for k, name in enumerate(("calm", "rough")):
        table.add_row(name, f"spread {values['spread'][k]:.2f}", f"{1 / (1 - values['times_stay'][k]):.0f}")
    return table


def draw(when: Tensor, growth: Tensor, slow: Tensor, rough: Tensor, to: Path) -> None:
    """The series, and the posterior of each chain, with the published dates."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", "The picture") from error

    figure, (series, phase, times) = plt.subplots(
        3, 1, figsize=(10, 6.6), sharex=True, height_ratios=(2, 1, 1), layout="constrained"
    )
    for axis in (series, phase):
        for i, ((year, peak), (end, trough)) in enumerate(RECESSIONS):
            label = "recession (NBER)" if i == 0 else None
            axis.axvspan(year + peak / 12, end + trough / 12, color="0.88", linewidth=0, label=label)
    series.plot(when, growth, color="#3b6fb6", linewidth=1)
    series.axhline(0, color="0.5", linewidth=0.6)
    series.set_ylabel("growth of real GDP,\n% a year")
    series.set_title("A factorial hidden Markov model: two chains behind one series")
    series.legend(frameon=False, loc="upper right")
    phase.fill_between(when, slow, color="#c4432b", linewidth=0, step="post")
    phase.set(ylabel="P(slow)", ylim=(0, 1))
    times.fill_between(when, rough, color="#e3a62f", linewidth=0, step="post")
    times.axvline(
        CALM_SINCE,
        color="black",
        linestyle="--",
        linewidth=1,
        label="break published for 1984, first quarter",
    )
    times.set(ylabel="P(rough)", xlabel="year", ylim=(0, 1), xlim=(1959, 2010))
    times.legend(frameon=False, loc="center", bbox_to_anchor=(0.72, 0.5))
    to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(to, dpi=110)
    plt.close(figure)


def main(picture: Path = PICTURE) -> dict[str, Fit]:
    console = Console()
    when, growth = read_growth()
    fits = {"one chain": maximum_likelihood(steady, growth), "two chains": maximum_likelihood(model, growth)}
    console.print(summary(fits, len(growth)))
    console.print(parameters(fits["two chains"]))
    slow, rough = read_back(growth)
    agree = ((slow > 0.5) == in_recession(when)).double().mean()
    console.print(
        f"{agree:.0%} of the quarters are slow where the NBER dates a recession, or brisk where it does not."
    )
    console.print(f"Times are calm from {turned_calm(when, rough):.2f} on; published: {CALM_SINCE:.2f}.")
    draw(when, growth, slow, rough, picture)
    console.print(f"Growth and both chains drawn in {picture}")
    return fits


if __name__ == "__main__":
    main()
