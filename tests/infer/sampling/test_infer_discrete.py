"""Discrete sites drawn while a program runs: each draw's log-probability is the joint's, and frequencies are right."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings

import sumout
import sumout.distributions as dist
from posteriors import Posterior
from programs import Program, programs
from sumout import markov, plate, sample
from sumout.errors import EnumerationError, ImpossibleEvidenceError, ModelError
from sumout.infer import config_enumerate, infer_discrete
from sumout.poutine import block, condition, mask, replay, scale, trace

EXACT = {"rtol": 1e-9, "atol": 1e-9}
DRAWS = 300


def check_frequencies(rows: torch.Tensor, weights: torch.Tensor) -> None:
    """Counts of assignments against their probabilities, by the G statistic, over bins that expect at least 10.

    It is about chi-squared with (bins - 1) degrees of freedom, whose tail beyond ``d + 2 sqrt(d t) + 2 t`` is below
    ``exp(-t)`` (Laurent and Massart 2000, lemma 1): with t = 23 a right sampler fails once in 10^10 runs.
    """
    count = len(rows)
    bins = torch.zeros(len(weights), dtype=torch.long)
    number, expected = 0, 0.0
    for index in weights.argsort(descending=True).tolist():
        bins[index] = number
        expected += count * weights[index].item()
        if expected >= 10:
            number, expected = number + 1, 0.0
    bins = bins.clamp(max=max(0, number - 1))
    found = torch.bincount(bins[rows], minlength=number).double()
    exact = torch.zeros(max(1, number), dtype=torch.float64).index_add_(0, bins, weights)
    freedom, t = max(1, number) - 1, 23.0
    statistic = 2 * torch.special.xlogy(found, found / (count * exact)).sum()
    assert statistic <= freedom + 2 * math.sqrt(freedom * t) + 2 * t


def values_of(program: Program, run, lead: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """The values of the latent sites, draws first and then the plates in alphabetical order."""
    values = {}
    for site in program.sites:
        if site.obs is None:
            value = run.nodes[site.name]["value"]
            sizes = [program.plates[name] for name in reversed(site.path)]
            value = value.reshape(*lead, *sizes) if lead else value.reshape(1, *sizes)
            order = sorted(range(len(site.path)), key=lambda place: tuple(reversed(site.path))[place])
            values[site.name] = value.permute(0, *(1 + place for place in order))
    return values


@given(programs())
@settings(max_examples=60)
def test_random_programs_many_draws_at_once(program: Program) -> None:
    """In a plate around them, each element of which is one draw."""
    problem = program.problem()
    assume(problem.sizes)
    posterior = Posterior(problem)
    with plate("draws", DRAWS, dim=-4):
        run = trace(infer_discrete(program)).get_trace()
    rows = posterior.rows_of(values_of(program, run, (DRAWS,)))
    total = sum(
        site["log_prob"].expand(DRAWS, *site["log_prob"].shape[1:]).flatten(1).sum(1)
        for site in run.nodes.values()
        if site["type"] == "sample" and site["name"] in {each.name for each in program.sites}
    )
    torch.testing.assert_close(total, posterior.log_joint[rows], **EXACT)
    check_frequencies(rows, posterior.weights)


@given(programs(max_assignments=200))
@settings(max_examples=40)
def test_random_programs_one_draw_and_the_best(program: Program) -> None:
    problem = program.problem()
    assume(problem.sizes)
    posterior = Posterior(problem)
    for temperature in (0, 1):
        run = trace(infer_discrete(program, temperature=temperature)).get_trace()
        values = values_of(program, run, ())
        for site in program.sites:
            expected = tuple(program.plates[name] for name in reversed(site.path))
            assert run.nodes[site.name]["value"].shape == expected
        (row,) = posterior.rows_of(values)
        torch.testing.assert_close(run.log_prob_sum(), posterior.log_joint[row], **EXACT)
        if temperature == 0:
            torch.testing.assert_close(posterior.log_joint[row], posterior.log_joint.max(), **EXACT)


@given(programs(max_statements=3, max_assignments=24))
@settings(max_examples=12, deadline=None)
def test_random_programs_one_value_after_another(program: Program) -> None:
    """Sites outside of plates are enumerated sequentially, those inside in parallel."""
    problem = program.problem()
    assume(problem.sizes)
    posterior = Posterior(problem)
    drawn = infer_discrete(config_enumerate(program, default="sequential"))
    rows = [posterior.rows_of(values_of(program, trace(drawn).get_trace(), ())) for _ in range(40)]
    check_frequencies(torch.cat(rows), posterior.weights)
    best = infer_discrete(config_enumerate(program, default="sequential"), temperature=0)
    (row,) = posterior.rows_of(values_of(program, trace(best).get_trace(), ()))
    torch.testing.assert_close(posterior.log_joint[row], posterior.log_joint.max(), **EXACT)


def steered(x: torch.Tensor) -> None:
    """What is observed depends by Python on a site."""
    z = sample("z", dist.Bernoulli(torch.tensor(0.5, dtype=torch.float64)), infer={"enumerate": "sequential"})
    loc = torch.tensor(1.0 if z else 0.0, dtype=torch.float64)
    sample("x", dist.Normal(loc, 1.0), obs=x)


def test_a_sequential_site_that_steers_the_program() -> None:
    """P(z = 1 | x = 1) is the logistic function of a half, 0.622."""
    drawn, x = infer_discrete(steered), torch.tensor(1.0, dtype=torch.float64)
    rows = torch.tensor([int(trace(drawn).get_trace(x).nodes["z"]["value"]) for _ in range(1000)])
    p = 1 / (1 + math.exp(-0.5))
    check_frequencies(rows, torch.tensor([1 - p, p], dtype=torch.float64))
    assert abs(rows.double().mean() - p) < 0.06  # four standard deviations; 0.496 is eight away


def test_sites_that_only_some_runs_have_and_automatic_enumeration() -> None:
    def model(x: torch.Tensor) -> None:
        z = sample("z", dist.Categorical(torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)))
        if z == 1:
            with plate("rows", 2):
                w = sample("w", dist.Bernoulli(torch.tensor(0.3, dtype=torch.float64)))
                sample("x", dist.Normal(3 * w, 1.0), obs=x)
        else:
            with plate("rows", 2):
                sample("x", dist.Normal(0.5 * z, 2.0), obs=x)

    x = torch.tensor([0.2, 2.5], dtype=torch.float64)
    of_z = [math.log(p) + dist.Normal(0.5 * z, 2.0).log_prob(x).sum().item() for z, p in ((0, 0.2), (2, 0.5))]
    each = torch.stack([dist.Normal(0.0, 1.0).log_prob(x), dist.Normal(3.0, 1.0).log_prob(x)])
    each = each + torch.tensor([[0.7], [0.3]]).log()
    of_w = {(a, b): math.log(0.3) + (each[a, 0] + each[b, 1]).item() for a in (0, 1) for b in (0, 1)}
    logs = torch.tensor([of_z[0], *of_w.values(), of_z[1]], dtype=torch.float64)
    drawn = infer_discrete(model, enumeration="auto")
    rows = []
    for _ in range(400):
        run = trace(drawn).get_trace(x)
        z = int(run.nodes["z"]["value"])
        assert ("w" in run) == (z == 1)
        w = run.nodes["w"]["value"] if z == 1 else torch.zeros(2)
        rows.append({0: 0, 1: 1 + int(2 * w[0] + w[1]), 2: 5}[z])
        assert run.log_prob_sum().item() == pytest.approx(logs[rows[-1]].item(), abs=1e-6)
    check_frequencies(torch.tensor(rows), logs.softmax(0))


def chain(x: torch.Tensor, dim: int | None = None) -> None:
    """Three states; all steps at once with ``dim``."""
    steps = torch.eye(3).double() * 2 + 0.5
    locs = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    z = None
    for t in markov(range(len(x)), **({} if dim is None else {"dim": dim, "name": "time"})):
        probs = torch.ones(3).double() if z is None else steps[z.long()]
        z = sample(f"z_{t}", dist.Categorical(probs))
        sample(f"x_{t}", dist.Normal(locs[z], 1.0), obs=x[t])


def test_a_vectorized_chain_is_drawn_as_the_loop_is() -> None:
    x = torch.tensor([-1.0, 0.5, 2.0, 1.5], dtype=torch.float64)
    states = torch.cartesian_prod(*[torch.arange(3)] * 4)

    def log_joint(z: torch.Tensor) -> torch.Tensor:
        run = condition(chain, data={f"z_{t}": z[t] for t in range(4)})
        return trace(run).get_trace(x).log_prob_sum()

    logs = torch.stack([log_joint(z) for z in states])
    for dim in (None, -1):
        best = trace(infer_discrete(chain, temperature=0)).get_trace(x, dim)
        torch.testing.assert_close(best.log_prob_sum(), logs.max(), **EXACT)
        drawn, rows = infer_discrete(chain), []
        for _ in range(150):
            run = trace(drawn).get_trace(x, dim)
            names = ["z_0", "z_slice(1, 4, None)"] if dim else [f"z_{t}" for t in range(4)]
            z = torch.cat([run.nodes[name]["value"].reshape(-1) for name in names])
            row = int((z * torch.tensor([27, 9, 3, 1])).sum())
            torch.testing.assert_close(run.log_prob_sum(), logs[row], **EXACT)
            rows.append(row)
        check_frequencies(torch.tensor(rows), logs.softmax(0))


def mixture(x: torch.Tensor) -> None:
    mu = sample("mu", dist.Normal(torch.zeros(()).double(), 1.0))
    with plate("data", len(x)):
        z = sample("z", dist.Bernoulli(torch.tensor(0.4, dtype=torch.float64)))
        sample("x", dist.Normal(mu + 2 * z, 1.0), obs=x)


X = torch.tensor([0.1, 1.2, 2.9], dtype=torch.float64)


def test_continuous_sites_have_the_values_that_handlers_give() -> None:
    """Given inside or outside, and along a plate of many samples; the mean of draws is the posterior's."""
    mus = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64).repeat_interleave(2000)
    values = {"mu": mus.reshape(-1, 1)}
    with plate("samples", 6000, dim=-2):
        inside = trace(infer_discrete(condition(mixture, data=values))).get_trace(X)
        outside = trace(condition(infer_discrete(mixture), data=values)).get_trace(X)
        before = trace(condition(mixture, data=values)).get_trace(X)
        for name in ("z", "x"):
            before.remove_node(name)
        before.nodes["mu"]["is_observed"] = False
        replayed = trace(replay(infer_discrete(mixture), trace=before)).get_trace(X)
    log_odds = math.log(0.4 / 0.6) + 2 * (X - mus[::2000].reshape(-1, 1)) - 2
    for run in (inside, outside, replayed):
        assert torch.equal(run.nodes["mu"]["value"], values["mu"])
        found = run.nodes["z"]["value"].reshape(3, 2000, 3).mean(1)
        assert (found - log_odds.sigmoid()).abs().max() < 0.055  # five standard deviations


def test_what_is_drawn_from_the_prior_is_kept() -> None:
    """A value that no handler gives is drawn once, and the discrete sites given that value."""
    run = trace(infer_discrete(mixture, temperature=0)).get_trace(X)
    mu = run.nodes["mu"]["value"]
    log_odds = math.log(0.4 / 0.6) + 2 * (X - mu) - 2
    assert torch.equal(run.nodes["z"]["value"], (log_odds > 0).double())


def test_a_continuous_site_that_nothing_depends_on_is_drawn_last() -> None:
    """A prediction does not weigh in the posterior of what it depends on, and is drawn given that."""

    def model() -> None:
        z = sample("z", dist.Bernoulli(torch.tensor(0.25, dtype=torch.float64)))
        sample("new", dist.Normal(1000 * z, torch.where(z == 1, 1e-3, 100.0).double()))
        sample("count", dist.Poisson(2.0 + 1e6 * z))

    drawn, rows = infer_discrete(model), []
    for _ in range(200):
        run = trace(drawn).get_trace()
        z = int(run.nodes["z"]["value"])
        assert abs(run.nodes["new"]["value"] - 1000 * z) < 600
        assert (run.nodes["count"]["value"] > 1000) == bool(z)
        assert run.nodes["new"]["value"].shape == ()
        rows.append(z)
    check_frequencies(torch.tensor(rows), torch.tensor([0.75, 0.25], dtype=torch.float64))


@pytest.mark.parametrize("mark", ["parallel", "sequential"])
def test_a_continuous_site_between_discrete_and_observed_is_refused(mark: str) -> None:
    def model() -> None:
        z = sample("z", dist.Bernoulli(torch.tensor(0.25)), infer={"enumerate": mark})
        between = sample("between", dist.Normal(z, 1.0))
        sample("x", dist.Normal(between, 1.0), obs=torch.tensor(0.0))

    with pytest.raises(EnumerationError, match="'between'.*'x'"):
        infer_discrete(model)()
    for handled in (
        infer_discrete(condition(model, data={"between": torch.tensor(5.0)})),
        condition(infer_discrete(model, temperature=0), data={"between": torch.tensor(5.0)}),
    ):
        assert trace(handled).get_trace().nodes["between"]["value"] == 5
    given = condition(infer_discrete(model, temperature=0), data={"between": torch.tensor(5.0)})
    assert trace(given).get_trace().nodes["z"]["value"] == 1


def test_sites_that_depend_on_what_was_drawn_are_refused() -> None:
    def model() -> None:
        z = sample("z", dist.Bernoulli(0.5), infer={"enumerate": "sequential"})
        if sample("u", dist.Normal(20 * z - 10 + 5 * torch.randn(()), 10.0)) > 0:
            sample("w", dist.Bernoulli(0.5), infer={"enumerate": "sequential"})

    with pytest.raises(EnumerationError, match="'u'|same function"):
        for _ in range(20):
            infer_discrete(model)()


def test_subsampled_and_masked_plates() -> None:
    """Local sites of a subsample are drawn from their own posterior; what is masked is drawn from the prior."""

    def model(x: torch.Tensor, seen: torch.Tensor) -> None:
        with plate("data", 100, subsample_size=3):
            z = sample("z", dist.Bernoulli(torch.tensor(0.3, dtype=torch.float64)))
            with mask(mask=seen):
                sample("x", dist.Normal(2 * z, 1.0), obs=x)

    seen = torch.tensor([True, True, False])
    with plate("draws", 3000, dim=-2):
        run = trace(infer_discrete(model)).get_trace(X, seen)
    log_odds = math.log(0.3 / 0.7) + torch.where(seen, 2 * X - 2, 0.0)
    assert (run.nodes["z"]["value"].mean(0) - log_odds.sigmoid()).abs().max() < 0.045
    assert run.nodes["data"]["value"].shape == (3,)


def test_a_global_site_over_a_subsampled_plate() -> None:
    """Each element that is looked at stands for four: a global site sees its evidence four times, a local one once."""
    x = torch.tensor([0.6, 0.9], dtype=torch.float64)

    def model() -> None:
        z = sample("z", dist.Bernoulli(torch.tensor(0.3, dtype=torch.float64)))
        with plate("data", 8, subsample=torch.tensor([1, 3])):
            k = sample("k", dist.Bernoulli(torch.tensor(0.4, dtype=torch.float64)))
            sample("x", dist.Normal(z + k, 1.0), obs=x)

    def local(z: float, k: int) -> torch.Tensor:
        return math.log((0.6, 0.4)[k]) + dist.Normal(torch.tensor(z + k).double(), 1.0).log_prob(x)

    logs = [
        math.log(p) + 4 * torch.logaddexp(local(z, 0), local(z, 1)).sum() for z, p in ((0.0, 0.7), (1.0, 0.3))
    ]
    chance = torch.stack(logs).softmax(0)[1]
    with plate("draws", 20_000, dim=-2):
        run = trace(infer_discrete(model)).get_trace()
    z, k = run.nodes["z"]["value"].squeeze(-1), run.nodes["k"]["value"]
    assert (z.mean() - chance).abs() < 5 * (chance * (1 - chance) / 20_000).sqrt()
    for value in (0.0, 1.0):
        rows = k[z == value]
        exact = torch.stack([local(value, 0), local(value, 1)]).softmax(0)[1]
        assert ((rows.mean(0) - exact).abs() < 5 * (0.25 / len(rows)) ** 0.5).all()


def test_crossed_plates() -> None:
    def model(x: torch.Tensor) -> None:
        rows, columns = plate("rows", 2, dim=-2), plate("columns", 2, dim=-1)
        with rows:
            a = sample("a", dist.Bernoulli(torch.tensor(0.4, dtype=torch.float64)))
        with columns:
            b = sample("b", dist.Bernoulli(torch.tensor(0.7, dtype=torch.float64)))
        with rows, columns:
            sample("x", dist.Normal(a * b, 0.7), obs=x)

    x = torch.tensor([[0.9, 0.2], [0.1, 1.1]], dtype=torch.float64)
    states = torch.cartesian_prod(*[torch.arange(2.0).double()] * 4)
    data = [{"a": s[:2].reshape(2, 1), "b": s[2:]} for s in states]
    logs = torch.stack([trace(condition(model, data=each)).get_trace(x).log_prob_sum() for each in data])
    drawn, rows = infer_discrete(model), []
    for _ in range(300):
        run = trace(drawn).get_trace(x)
        bits = torch.cat([run.nodes["a"]["value"].reshape(-1), run.nodes["b"]["value"]])
        rows.append(int((bits * torch.tensor([8, 4, 2, 1])).sum()))
        torch.testing.assert_close(run.log_prob_sum(), logs[rows[-1]], **EXACT)
    check_frequencies(torch.tensor(rows), logs.softmax(0))


def test_more_sites_than_dimensions() -> None:
    """120 coins that a parity ties together in pairs: found without ``markov``."""

    def model() -> None:
        last = torch.zeros(())
        for number in range(120):
            z = sample(f"z{number}", dist.Bernoulli(torch.tensor(0.5)))
            sample(f"x{number}", dist.Bernoulli(torch.where(z == last, 0.9, 0.1)), obs=torch.tensor(1.0))
            last = z

    run = trace(infer_discrete(model, temperature=0)).get_trace()
    assert all(run.nodes[f"z{number}"]["value"] == 0 for number in range(120))
    assert run.log_prob_sum().item() == pytest.approx(120 * math.log(0.45), rel=1e-5)


def test_draws_are_differentiable_traces_and_leave_no_marks() -> None:
    @infer_discrete(temperature=0)
    def model(p: torch.Tensor) -> torch.Tensor:
        """What is drawn."""
        z = sample("z", dist.Bernoulli(p))
        sample("x", dist.Normal(z, 1.0), obs=torch.tensor(1.0))
        return z

    assert model.__doc__ == "What is drawn."
    p = torch.tensor(0.75, requires_grad=True)
    run = trace(model).get_trace(p)
    assert run.nodes["_RETURN"]["value"] == 1
    assert run.nodes["z"]["enum_dim"] is None
    assert not any(key.startswith("_do") for site in run.nodes.values() for key in site["infer"])
    assert torch.autograd.grad(run.log_prob_sum(), p)[0].item() == pytest.approx(1 / 0.75)
    assert not trace(block(model)).get_trace(p).nodes["_RETURN"]["value"].requires_grad


def test_a_scale_around_all_changes_no_draw_and_a_mark_leaves_a_site_out() -> None:
    def model() -> None:
        sample("w", dist.Bernoulli(torch.tensor(0.999, dtype=torch.float64)), infer={"enumerate": None})
        with scale(scale=3.0):
            z = sample("z", dist.Bernoulli(torch.tensor(0.5, dtype=torch.float64)))
            sample("x", dist.Normal(z, 1.0), obs=torch.tensor(1.0, dtype=torch.float64))

    with plate("draws", 4000, dim=-1):
        run = trace(infer_discrete(model)).get_trace()
    assert abs(run.nodes["z"]["value"].mean() - 1 / (1 + math.exp(-0.5))) < 0.035
    assert 0.98 < run.nodes["w"]["value"].mean() < 1


def test_without_discrete_sites_it_is_the_program() -> None:
    def model(scale: float) -> None:
        x = sample("x", dist.Normal(0.0, scale))
        sample("y", dist.Delta(x), obs=torch.tensor(7.0))  # of density zero, which concerns nobody here

    torch.manual_seed(0)
    for temperature in (0, 1):
        run = trace(infer_discrete(model, temperature=temperature)).get_trace(2.0)
        assert run.nodes["x"]["value"].shape == ()
    assert list(trace(infer_discrete(lambda: None)).get_trace()) == ["_INPUT", "_RETURN"]


def test_wrong_use() -> None:
    with pytest.raises(ValueError, match="temperature"):
        infer_discrete(steered, temperature=2)
    with pytest.raises(ModelError, match="negative|right"):
        infer_discrete(steered, first_available_dim=1)
    with pytest.raises(ModelError, match="program first"):
        infer_discrete(3)

    def impossible() -> None:
        z = sample("z", dist.Bernoulli(0.5))
        sample("x", dist.Delta(z), obs=torch.tensor(2.0))

    for temperature in (0, 1):
        with pytest.raises(ImpossibleEvidenceError):
            infer_discrete(impossible, temperature=temperature)()
    with sumout.validation_enabled(False), pytest.raises(EnumerationError, match="dims"):
        infer_discrete(mixture, first_available_dim=-1)(X)
