"""What to say of delayed sites without an integral in closed form: which site, through what, and what would work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sumout.distributions as dist
from sumout.distributions.conjugacy import GAUSSIAN, INVERSE, LIKELIHOODS, Rule
from sumout.distributions.families import innermost
from sumout.effects.delayed import Delayed
from sumout.effects.steps import is_lookback
from sumout.errors import ModelError
from sumout.lower.collapse.arms import arm_of
from sumout.lower.collapse.normal import NormalForm, normal_form
from sumout.lower.collapse.parameters import delayed_parameters
from sumout.lower.collapse.sites import CollapsedSite

Latents = Mapping[str, CollapsedSite]


class NotConjugateError(ModelError):
    """A delayed site has no integral in closed form; ``sites`` are the delayed sites that are to blame."""

    def __init__(self, message: str, sites: Iterable[str]) -> None:
        super().__init__(message)
        self.sites = frozenset(sites)


def delayed_of(site: CollapsedSite) -> list[Delayed]:
    """What a site has to do with delayed sites: its parameters, and what it observes."""
    values = delayed_parameters(site.fn)
    return [*values, site.value] if isinstance(site.value, Delayed) and not site.is_latent else values


def not_conjugate(group: Sequence[CollapsedSite], latents: Latents) -> NotConjugateError:
    """Names the site at which the conjugacy ends, how it depends on others, and the nearest form that is known."""
    for site in group:
        names = tuple(dict.fromkeys([each for value in delayed_of(site) for each in value.sites]))
        if names and not _fits_alone(site, latents):
            return NotConjugateError(
                f"Site {_told(site)} depends on the delayed site {_listed(names, latents)}: {_how(site)}. There is no "
                f"closed form for that. {_nearest(site, names, latents)} Or leave {_them(names)} to sampling: "
                "infer={'collapse': False} or collapse(strict=False); or draw it first: poutine.barrier.",
                names,
            )
    return NotConjugateError(_together(group, latents), tuple(latents))


def _fits_alone(site: CollapsedSite, latents: Latents) -> bool:
    """Whether a site would be conjugate to those that it depends on, but for other sites."""
    if arm_of(site, latents) is not None:
        return True
    form = normal_form(site.fn, site.value)
    return form is not None and _is_gaussian(form, latents) and _has_unit(form, latents)


def _is_gaussian(form: NormalForm, latents: Latents) -> bool:
    """Whether all that a residual is made of is Gaussian itself."""
    sites = form.residual.sites if isinstance(form.residual, Delayed) else ()
    return all(normal_form(latents[name].fn, latents[name].value) is not None for name in sites)


def _has_unit(form: NormalForm, latents: Latents) -> bool:
    """Whether a delayed scale is the root of a variance or of a precision, as its family wants it."""
    if form.unit is None:
        return True
    kind = _kind(latents[form.unit.site])
    return kind in (dist.Gamma, dist.InverseGamma) and form.power == (0.5 if kind in INVERSE else -0.5)


def _together(group: Sequence[CollapsedSite], latents: Latents) -> str:
    """Of sites each of which would do alone."""
    scales = [name for name, site in latents.items() if _kind(site) not in GAUSSIAN]
    back = next((site for site in latents.values() if is_lookback(site.message)), None)
    if back is not None and scales:
        return (
            f"Steps of a vectorized chain look back at site {_told(back)}, which is part of the integrals of two steps "
            "there. Loop step by step: markov without dim."
        )
    start = (
        f"The delayed sites {_listed(tuple(latents), latents)} are observed together, and there is no closed form for "
        "their joint integral. "
    )
    end = " Or leave one to sampling: infer={'collapse': False}."
    if len(scales) > 1:
        two = " and ".join(map(repr, scales[:2]))
        return (
            f"{start}Normal sites may share one unknown scale with each other and with what is observed of them, and "
            f"{two} are two. Give all of them the same, or leave all but one out.{end}"
        )
    if scales and len(latents) > 1:
        (scale,) = scales
        root = "sqrt" if _kind(latents[scale]) in INVERSE else "rsqrt"
        for site in group:
            form = normal_form(site.fn, site.value)
            if form is not None and form.unit is None:
                return (
                    f"{start}Where a scale is unknown, all normal sites share it, and site {_told(site)} does not: "
                    f"nearest is a standard deviation that is a multiple of {scale}.{root}() there, too.{end}"
                )
    return f"{start}Each is conjugate to its own observations only.{end}"


def _kind(site: CollapsedSite) -> type:
    return type(innermost(site.fn))


def _told(site: CollapsedSite) -> str:
    return f"{site.name!r} ({_kind(site).__name__})"


def _listed(names: Sequence[str], latents: Latents) -> str:
    told = [_told(latents[name]) for name in names]
    return " and ".join([", ".join(told[:-1]), told[-1]] if len(told) > 1 else told)


def _them(names: Sequence[str]) -> str:
    return "site " + " or ".join(map(repr, names))


def _how(site: CollapsedSite) -> str:
    """The parameters that depend on delayed sites, and how."""
    base = innermost(site.fn)
    given = {
        name: value for name, value in vars(base).items() if isinstance(value, Delayed) and name[0] != "_"
    }
    if "probs" in given and "logits" in given:  # One is computed from the other, which comes first.
        del given[[name for name in given if name in ("probs", "logits")][1]]
    told = [f"{name} is {_form(value)}" for name, value in given.items()]
    if not told:
        told = [f"a parameter is {_form(value)}" for value in delayed_parameters(site.fn)]
    if isinstance(site.value, Delayed) and not site.is_latent:
        told.append(f"what it observes is {_form(site.value)}")
    return ", ".join(dict.fromkeys(told))


def _form(value: Delayed) -> str:
    names = " and ".join(value.sites)
    if value.unknown is not None:
        return f"made of {names} through {value.unknown!r}"
    times = all(bool((link.coef == 1).all()) for link in value.links)
    if value.power != 1.0:
        return _power(names, value.power) if times else f"a multiple of {_power(names, value.power)}"
    if len(value.links) == 1 and value.shift is None and value.links[0].terms == 1:
        return names if times else f"a multiple of {names}"
    return f"an affine function of {names}"


def _power(name: str, power: float) -> str:
    known = {1.0: name, 0.5: f"{name}.sqrt()", -0.5: f"{name}.rsqrt()", -1.0: f"1 / {name}"}
    return known.get(power, f"{name} ** {power:g}")


def _nearest(site: CollapsedSite, names: Sequence[str], latents: Latents) -> str:
    """Forms of the same families that are known, or other families for the site or for what it depends on."""
    kind, parent = _kind(site), latents[names[0]]
    if _kind(parent) in GAUSSIAN:
        known = "Normal, MultivariateNormal and LogNormal with loc an affine function of it"
        found = f"Known with {_kind(parent).__name__}: {known}."
        if kind in (*GAUSSIAN, dist.LogNormal) and len(names) > 1:
            found = f"Known: {known}; a product of two delayed sites is none, so draw one of them."
    else:
        rules = LIKELIHOODS[_kind(parent)]
        if len(names) > 1:
            found = f"Known with {_kind(parent).__name__}: sites that depend on one such site alone."
        elif kind in rules:
            forms = " or ".join(_wanted(rule, innermost(site.fn), parent) for rule in rules[kind])
            found = f"Nearest that is known: {kind.__name__} with {forms}."
        else:
            families = ", ".join(f"{each.__name__}({options[0].name}=...)" for each, options in rules.items())
            found = f"Known with {_kind(parent).__name__}: {families}."
    own = LIKELIHOODS.get(_kind(parent), {})
    if kind not in own and kind not in (*GAUSSIAN, dist.LogNormal):
        priors = [each.__name__ for each, rules in LIKELIHOODS.items() if kind in rules]
        if priors:
            found += f" {kind.__name__} is known with a prior that is {' or '.join(priors)}."
    return found


def _wanted(rule: Rule, base: Any, parent: CollapsedSite) -> str:
    """How a rule wants its parameter."""
    name = parent.name
    if rule.complement:
        return f"{rule.name} {name} or 1 - {name}"
    if not rule.scaled:
        return f"{rule.name} all of {name}"
    power = rule.power(base) if callable(rule.power) else rule.power
    if power is None:
        return f"{rule.name} a multiple of a power of {name} that belongs to its other parameters"
    return f"{rule.name} a multiple of {_power(name, -power if _kind(parent) in INVERSE else power)}"
