"""How long do dippers live? Survival of birds that are caught again, or not.

European dippers were marked with rings in eastern France, and looked for in each of seven springs. A bird that is
not seen again is dead, or was missed: whether it lives is a hidden chain of yes and no, and all that is known of it
is whether the bird was caught. `sumout` sums the chains out, so that the likelihood of survival and capture is
exact. Three models are fitted: all years alike, each year its own, and two years with a flood set apart. The data
are those of Lebreton, Burnham, Clobert and Anderson, *Modeling survival and testing biological hypotheses using
marked animals* (1992).

    python docs/examples/dippers.py
"""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from fitting import Fit, maximum_likelihood, standard_errors
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
DATA = HERE / "data" / "dippers.csv"
PICTURE = HERE / "dippers.png"
YEARS = list(range(1981, 1988))
PUBLISHED = {"survival": 0.560, "capture": 0.903}  # all years alike: Lebreton and others (1992)
FLOODED = torch.tensor([0, 1, 1, 0, 0, 0])  # the intervals 1982-83 and 1983-84
# For each model: which of its survival and capture probabilities holds in each interval between two springs.
MODELS = {
    "all years alike": (torch.zeros(6).long(), torch.zeros(6).long()),
    "each year its own": (torch.arange(6), torch.arange(6)),
    "floods apart": (FLOODED, torch.zeros(6).long()),
}


def read_histories() -> Tensor:
    """Who was caught when: one row of 0 and 1 for each bird, shape (294, 7).

    The table that was published says how many of the birds released in each year were next caught in each later
    year. Whose next release follows on which does not matter to the likelihood, so they are joined as they come.
    """
    with DATA.open(newline="") as file:
        rows = [[int(cell or 0) for cell in row] for row in list(csv.reader(file))[1:]]
    released = [row[1] for row in rows]
    caught_again = torch.tensor([row[2:] for row in rows])
    histories: list[list[int]] = []
    here: list[list[list[int]]] = [[] for _ in YEARS]  # the birds caught in each year
    for year in range(7):
        new = (released[year] if year < 6 else 54 + 39) - len(here[year])
        for _ in range(new):
            history = [0] * 7
            histories.append(history)
            here[year].append(history)
        for history in here[year]:
            history[year] = 1
        if year < 6:
            waiting = iter(here[year])
            for later in range(year + 1, 7):
                here[later] += [next(waiting) for _ in range(int(caught_again[year, later - 1]))]
    return torch.tensor(histories).double()


# ------------------------------------------------------------------------------------------------ the model


def model(histories: Tensor, survival_of: Tensor, capture_of: Tensor) -> None:
    """Each bird lives on or dies from spring to spring; who lives is caught, or missed. The dead are never caught."""
    start = torch.full((7,), 0.7).double()
    survival = sumout.param("survival", start[: survival_of.max() + 1], constraint=constraints.unit_interval)
    capture = sumout.param("capture", start[: capture_of.max() + 1], constraint=constraints.unit_interval)
    first = histories.argmax(-1)
    with sumout.plate("birds", len(histories)):
        alive = torch.ones(len(histories)).double()
        for t in sumout.markov(range(1, 7)):
            # A bird is followed from its first capture on, and then it lives.
            lives = survival[survival_of[t - 1]] * torch.where(first < t - 1, alive, 1.0)
            with poutine.mask(mask=first < t):
                alive = sumout.sample(f"alive_{t}", dist.Bernoulli(lives), infer={"enumerate": "parallel"})
                caught = dist.Bernoulli(capture[capture_of[t - 1]] * alive)
                sumout.sample(f"caught_{t}", caught, obs=histories[:, t])


def fit(histories: Tensor, name: str) -> tuple[Fit, dict[str, Tensor]]:
    """The most likely parameters of a model, and their standard errors."""
    found = maximum_likelihood(model, histories, *MODELS[name])
    return found, standard_errors(model, histories, *MODELS[name])


def chances_of_life(histories: Tensor) -> Tensor:
    """P(alive | history) in each spring under the params in the store, shape (birds, 7); before a first capture NaN."""
    posterior = infer.marginals(model)(histories, *MODELS["all years alike"])
    later = torch.stack([posterior[f"alive_{t}"].mean for t in range(1, 7)], -1).detach()
    chances = torch.cat([torch.ones(len(histories), 1).double(), later], -1)
    first = histories.argmax(-1, keepdim=True)
    chances = torch.where(torch.arange(7) == first, 1.0, chances)
    return torch.where(torch.arange(7) < first, torch.nan, chances)


# ---------------------------------------------------------------------------------------------- the results


def by_formula(histories: Tensor) -> dict[str, Tensor]:
    """The estimates of Jolly (1965) and Seber (1965) when each year is its own: survival 1 to 5, capture 1 to 5.

    How many ringed birds there are in a year, caught or not, is estimated by those that are caught later: as the birds
    released in that year fare, so do those that were missed.
    """
    caught = histories == 1
    released = caught.sum(0).double()
    ringed = torch.zeros(7).double()
    recaptured = torch.zeros(7).double()
    for t in range(1, 6):
        before, later = caught[:, :t].any(-1), caught[:, t + 1 :].any(-1)
        recaptured[t] = (before & caught[:, t]).sum()
        missed = (before & ~caught[:, t] & later).sum()
        ringed[t] = recaptured[t] + released[t] * missed / (caught[:, t] & later).sum()
    survival = ringed[1:6] / (ringed[:5] - recaptured[:5] + released[:5])
    return {"survival": survival, "capture": recaptured[1:6] / ringed[1:6]}


def known(name: str, histories: Tensor) -> dict[str, list[float]]:
    """What a model's estimates are set beside: published ones, or a formula's."""
    if name == "all years alike":
        return {param: [value] for param, value in PUBLISHED.items()}
    if name == "each year its own":
        return {param: values.tolist() for param, values in by_formula(histories).items()}
    return {}


def comparison(fits: dict[str, tuple[Fit, dict[str, Tensor]]], histories: Tensor) -> Table:
    """Estimates and standard errors beside what is known of them; the fit of each model."""
    table = Table(title="294 dippers, 1981-1987", box=box.SIMPLE, collapse_padding=True, pad_edge=False)
    table.add_column("model")
    table.add_column("")
    for heading in ("estimate", "s.e.", "known", "-2 log L", "AIC"):
        table.add_column(heading, justify="right")
    for name, (found, errors) in fits.items():
        # Of the last interval only the product of survival and capture is known: one number less.
        free = sum(value.numel() for value in found.values.values()) - (name == "each year its own")
        deviance = -2 * found.log_likelihood
        head, tail = name, [f"{deviance:.3f}", f"{deviance + 2 * free:.2f}"]
        beside = known(name, histories)
        for param, values in found.values.items():
            others = beside.get(param, [])
            for i, (value, error) in enumerate(zip(values.tolist(), errors[param].tolist(), strict=True)):
                label = f"{param} {i + 1}" if len(values) > 1 else param
                spread = f"{error:.4f}" if error < 1 else "-"
                digits = 3 if len(values) == 1 else 4
                other = f"{others[i]:.{digits}f}" if i < len(others) else ""
                table.add_row(head, label, f"{value:.4f}", spread, other, *tail)
                head, tail = "", ["", ""]
    table.caption = (
        "known: published (all years alike), by the formula of Jolly and Seber (each year its own)"
    )
    return table


def draw(
    fits: dict[str, tuple[Fit, dict[str, Tensor]]], chances: Tensor, histories: Tensor, to: Path
) -> None:
    """Survival between springs under the three models; whether birds live that were last seen in 1984."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", "The picture") from error

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), width_ratios=(3, 2), layout="constrained")
    spans = [f"{a}-{str(a + 1)[2:]}" for a in YEARS[:-1]]
    places = torch.arange(6)
    colours = dict(zip(MODELS, ("#4d4d4d", "#3b6fb6", "#c4432b"), strict=True))
    left.axvspan(0.5, 2.5, color="#dbe9f6", label="flood", zorder=0)
    for shift, (name, (found, errors)) in zip((-0.2, 0.0, 0.2), fits.items(), strict=True):
        which = MODELS[name][0]
        middle, error = found.values["survival"][which], errors["survival"][which]
        known = error < 1
        left.errorbar(
            places[known] + shift, middle[known], yerr=1.96 * error[known], fmt="o", capsize=3, markersize=5,
            color=colours[name], label=name,
        )  # fmt: skip
    left.axhline(
        PUBLISHED["survival"], color=colours["all years alike"], linewidth=1, linestyle=":", label="published"
    )
    formula = by_formula(histories)["survival"].tolist()
    left.plot(
        range(5),
        formula,
        "D",
        color="black",
        fillstyle="none",
        markersize=9,
        label="Jolly and Seber's formula",
    )
    left.set_xticks(places, spans)
    left.set(xlabel="from spring to spring", ylabel="probability to survive (95% interval)", ylim=(0.2, 1.04))
    left.set_title("Survival of dippers under three models")
    left.legend(edgecolor="none", framealpha=1, fontsize=9, ncols=2, loc="upper right")

    for year, colour in zip((1981, 1983, 1985), ("#3b6fb6", "#e3a62f", "#c4432b"), strict=True):
        t = YEARS.index(year)
        last = (histories[:, t] == 1) & (histories[:, t + 1 :].sum(-1) == 0)
        bird = int(last.nonzero()[0])
        right.plot(
            YEARS[t:], chances[bird, t:], "o-", color=colour, markersize=5, label=f"last seen in {year}"
        )
    right.set_xticks(YEARS)
    right.set(xlabel="spring", ylabel="P(alive | when it was seen)", yscale="log")
    right.set_title("Not seen again: dead, or missed?")
    right.legend(frameon=False, fontsize=9)
    to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(to, dpi=110)
    plt.close(figure)


def main(picture: Path = PICTURE) -> dict[str, tuple[Fit, dict[str, Tensor]]]:
    console = Console()
    histories = read_histories()
    fits = {name: fit(histories, name) for name in MODELS}
    console.print(comparison(fits, histories))
    fit(histories, "all years alike")  # whose params `chances_of_life` takes
    draw(fits, chances_of_life(histories), histories, picture)
    console.print(f"Survival and chances of life drawn in {picture}")
    return fits


if __name__ == "__main__":
    main()
