"""From Gaussian sites that depend on each other to a component: which plates are written out, or problems apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sumout.effects import CondIndepStackFrame
from sumout.effects.steps import names_in_loop
from sumout.errors import ModelError
from sumout.lower.collapse.chains import chains_of, single_steps, step_by_step
from sumout.lower.collapse.component import Component, codes_of
from sumout.lower.collapse.digits import lose_digits
from sumout.lower.collapse.filters import Filter, filtered
from sumout.lower.collapse.gaussian import GaussianFactor, Member, Parts, apart, factor_of, match, plates_of
from sumout.lower.collapse.layout import extents, refuse_subsample
from sumout.lower.collapse.sites import CollapsedSite
from sumout.plan import FactorShape, Structure, make_plan
from sumout.plan.outline import StuckError

Ordinals = Mapping[str, frozenset[str]]


def component_or_filter(
    members: Sequence[Member],
    latents: Mapping[str, CollapsedSite],
    discrete: Mapping[str, frozenset[str]],
    kept: frozenset[str] = frozenset(),
) -> Component | Filter:
    """The factors of sites that depend on each other.

    Plates whose elements are used together are written out, and where plates are crossed, the smallest that helps.

    Args:
        members: the sites.
        latents: the delayed sites among them, by name.
        discrete: the plates of each enumerated site.
        kept: plates, in which all delayed sites live, whose elements are problems of their own.

    Raises:
        ModelError: if an enumerated site lives in a plate that a delayed site does not, whose integral would tie all
            of the plate's elements together; or if elements of a subsample, of a plate around the collapsing context,
            or steps of a vectorized chain are used together.
    """
    for each in members:
        for name in each.uses:
            refuse_subsample(each.site, latents[name])
    written = frozenset(plate for each in members for plate in plates_of(each) if match(each, plate) is None)
    frames = {
        frame.name: frame for latent in latents.values() for frame in latent.inner if frame.dim is not None
    }
    chains = chains_of(latents.values())
    while True:
        for plate in sorted(written):
            _refuse_mixed(plate, frames, chains)
        found = _component(members, latents, discrete, kept, written, frames)
        if isinstance(found, Filter):
            return found
        try:
            make_plan(found.structure)
        except StuckError as stuck:
            sizes = dict(found.structure.sizes)
            written |= {min(sorted(stuck.plates), key=lambda each: sizes[each])}
        else:
            return found


def component(
    members: Sequence[Member],
    latents: Mapping[str, CollapsedSite],
    discrete: Mapping[str, frozenset[str]],
    kept: frozenset[str] = frozenset(),
) -> Component:
    """The same for those that are to be integrated in another way, too: no chain is filtered."""
    found = component_or_filter(members, latents, discrete, kept)
    return found.component if isinstance(found, Filter) else found


def _refuse_mixed(plate: str, frames: Mapping[str, CondIndepStackFrame], chains: frozenset[str]) -> None:
    """Raises ``ModelError`` for a plate whose elements must not be used together."""
    if plate in chains:
        raise ModelError(
            f"Steps of chain {plate!r} are used together, by a sum or a sequence of steps. Loop step by step: "
            "markov(range(T)) without dim."
        )
    if plate not in frames:
        raise ModelError(
            f"Elements of plate {plate!r}, which is around the collapsing context, are used together by sites within "
            "it. Put the plate inside, or collapse outside."
        )
    if frames[plate].scale != 1.0:
        raise ModelError(
            f"Plate {plate!r} is a subsample, and elements of delayed sites in it are used together, which has no "
            "meaning for the elements that are left out. Take the whole plate."
        )


class _Apart(NamedTuple):
    """The factors of sites, with what their dimensions are."""

    factors: list[Parts | GaussianFactor]
    ordinals: Ordinals
    chosen: list[str]
    chains: frozenset[str]


def in_order(
    members: Sequence[Member], latents: Mapping[str, CollapsedSite], discrete: Mapping[str, frozenset[str]]
) -> list[GaussianFactor] | None:
    """The factors of sites that discrete ones choose among and that are to be taken in the order of the program.

    ``None`` where there are no such discrete sites, or where elements of plates are multiplied.
    """
    if any(match(each, plate) is None for each in members for plate in plates_of(each)):
        return None
    apart = _apart(members, latents, discrete, frozenset(), frozenset())
    if not apart.chosen or apart.chains or any(apart.ordinals.values()):
        return None
    return [each.joined() if isinstance(each, Parts) else each for each in apart.factors]


def _apart(
    members: Sequence[Member],
    latents: Mapping[str, CollapsedSite],
    discrete: Mapping[str, frozenset[str]],
    kept: frozenset[str],
    written: frozenset[str],
    roots: bool = False,
) -> _Apart:
    ordinals: Ordinals = {
        name: frozenset(extents(latent)) & latent.inner_plates - written for name, latent in latents.items()
    }
    inner = frozenset(frame.name for each in members for frame in each.site.inner)
    chosen = sorted(
        {name for each in members for _, name in each.site.enumerated(each.single) if name in discrete}
    )
    homes = inner & kept.union(*[discrete[each] for each in chosen])
    chains = chains_of(latents.values())
    for name, ordinal in sorted(ordinals.items()):
        # The steps of a chain are tied together, whatever lives in them.
        for plate in sorted((homes - ordinal) | (homes & chains)):
            site = next(each for each in (*chosen, name) if plate in discrete.get(each, {plate}))
            raise (
                switching(name, site, plate) if plate in chains and site != name else tied(name, site, plate)
            )
    factors = [
        single for each in members for single in apart(each, factor_of(each, latents, written, homes, roots))
    ]
    ordinals = {name: ordinal - homes for name, ordinal in ordinals.items()}
    return _Apart(factors, ordinals, chosen, chains)


def _component(
    members: Sequence[Member],
    latents: Mapping[str, CollapsedSite],
    discrete: Mapping[str, frozenset[str]],
    kept: frozenset[str],
    written: frozenset[str],
    frames: Mapping[str, CondIndepStackFrame],
) -> Component | Filter:
    apart = _apart(members, latents, discrete, kept, written)
    roots = lose_digits(apart.factors)
    if roots:
        apart = _apart(members, latents, discrete, kept, written, roots)
    factors, ordinals, chosen, chains = apart

    def unrolled() -> Component:
        whole = [each.joined() if isinstance(each, Parts) else each for each in factors]
        if not chains:
            return _assembled(whole, latents, ordinals, written, frames)
        whole = step_by_step(whole, latents, chains)
        steps = {each: of for of, latent in latents.items() for each in names_in_loop(latent.message)}
        singles = single_steps(latents)
        own = {name: ordinals[steps[name]] - chains for name in singles}
        return _assembled(whole, singles, own, written, frames)

    if chains and not written and not chosen and not roots:
        scales = {name: frame.scale for name, frame in frames.items()}

        def assembled(left: Sequence[GaussianFactor], common: Mapping[str, CollapsedSite]) -> Component:
            return _assembled(left, common, ordinals, written, frames)

        found = filtered(members, factors, latents, ordinals, scales, unrolled, assembled)
        if found is not None:
            return found
    return unrolled()


def tied(latent: str, site: str, plate: str) -> ModelError:
    """What to say of an integral over something that an enumerated site in a plate depends on."""
    return ModelError(
        f"Site {latent!r} is integrated out, and what depends on it also depends on site {site!r}, which is summed out "
        f"in plate {plate!r}: the integral ties all elements of the plate together, and has a term for each of their "
        f"joint values. Leave site {latent!r} to a guide or to sampling: infer={{'collapse': False}}."
    )


def switching(latent: str, site: str, chain: str) -> ModelError:
    """What to say of a vectorized chain in each step of which an enumerated site chooses."""
    return ModelError(
        f"Site {latent!r} is integrated out, and steps of the vectorized chain {chain!r} also depend on site {site!r}, "
        "which is summed out in each: the integral ties all steps together, and has a term for each of their joint "
        "values. Approximate it, step by step: markov(range(T)) without dim, and "
        "collapse(approximate='moment_matching'). Or leave the site to a guide or sampling: infer={'collapse': False}."
    )


def _assembled(
    factors: Sequence[GaussianFactor],
    latents: Mapping[str, CollapsedSite],
    ordinals: Mapping[str, frozenset[str]],
    written: frozenset[str],
    frames: Mapping[str, CondIndepStackFrame],
) -> Component:
    plates = frozenset().union(*ordinals.values())
    sizes = {
        name: factor.table.rest.shape[place] for factor in factors for place, name in enumerate(factor.names)
    }
    real = {}
    known: dict[int, dict[str, tuple[int, int]]] = {}  # Steps of a chain share one site.
    for name, latent in latents.items():
        real[name] = latent.event_size
        own = known.get(id(latent)) or known.setdefault(id(latent), extents(latent))
        for plate, (_, size) in own.items():
            if plate in written:
                real[name] *= size
            else:
                sizes.setdefault(plate, size)
    batch = tuple(
        dict.fromkeys([name for factor in factors for name in sorted(factor.names) if name not in plates])
    )
    codes = codes_of(set(real.values()), set(sizes.values()))
    shapes = tuple(
        [
            FactorShape(
                (*each.names, *each.scope), frozenset().union(*[ordinals[name] for name in each.scope])
            )
            for each in factors
        ]
    )
    structure = Structure(
        shapes,
        tuple([(name, size) for name, size in sizes.items() if name in plates or name in batch])
        + tuple([(name, codes[size]) for name, size in real.items()]),
        tuple([(name, ordinals[name]) for name in real]),
        tuple([(name, frames[name].scale) for name in sorted(plates)]),
        batch,
    )
    return Component(structure, tuple([factor.table for factor in factors]), real, written)
