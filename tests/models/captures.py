"""Animals that are caught again, or not."""

from __future__ import annotations

from typing import Any

import torch

from models.language import Program, at, model, simplex, unit, vector

CAUGHT = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0], [1, 1, 0, 1]]).double()
FIRST = torch.tensor([0, 1, 0])


@model(
    latent=tuple(f"alive_{t}" for t in (1, 2, 3)),
    observed=tuple(f"caught_{t}" for t in (1, 2, 3)),
    discrete=tuple(f"alive_{t}" for t in (1, 2, 3)),
    max_plate_nesting=1,
    params=("survival", "capture"),
)
def capture_recapture(ppl: Any) -> Program:
    """Animals that are caught again, or not: dead, or missed? Cormack (1964), Jolly (1965), Seber (1965)."""

    def program() -> Any:
        survival, capture = unit(ppl, "survival", 3), unit(ppl, "capture")
        with ppl.plate("animals", len(CAUGHT)):
            alive: Any = torch.ones(len(CAUGHT)).double()
            for t in ppl.markov(range(1, 4)):
                with ppl.mask(mask=t > FIRST):
                    probs = torch.where(t - 1 > FIRST, survival[t - 1] * alive, survival[t - 1])
                    alive = ppl.sample(f"alive_{t}", ppl.dist.Bernoulli(probs))
                    ppl.sample(f"caught_{t}", ppl.dist.Bernoulli(capture * alive), obs=CAUGHT[:, t])

    return program


@model(
    latent=tuple(f"where_{t}" for t in (1, 2, 3)),
    observed=tuple(f"seen_{t}" for t in (1, 2, 3)),
    discrete=tuple(f"where_{t}" for t in (1, 2, 3)),
    max_plate_nesting=1,
    params=("survival", "moves", "capture"),
)
def multistate_capture(ppl: Any) -> Program:
    """Animals in two places, or dead; what is seen is a place, or nothing. Arnason (1973)."""
    seen = torch.tensor([[0, 2, 1, 2], [1, 1, 2, 2]])  # 2: not seen

    def program() -> Any:
        survival, moves = unit(ppl, "survival", 2), simplex(ppl, "moves", 2, 2)
        capture = unit(ppl, "capture", 2)
        alive = torch.cat([survival[:, None] * moves, 1 - survival[:, None]], -1)
        table = torch.cat([alive, vector(0.0, 0.0, 1.0)[None]])
        shown = torch.cat([torch.diag(capture), 1 - capture[:, None]], -1)
        shown = torch.cat([shown, vector(0.0, 0.0, 1.0)[None]])
        with ppl.plate("animals", len(seen)):
            where: Any = seen[:, 0]
            for t in ppl.markov(range(1, 4)):
                where = ppl.sample(f"where_{t}", ppl.dist.Categorical(at(table, where)))
                ppl.sample(f"seen_{t}", ppl.dist.Categorical(at(shown, where)), obs=seen[:, t])

    return program
