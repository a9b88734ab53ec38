"""What sumout raises: every message says what was found, the rule it breaks, and what to try."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], limit: int = 3) -> str:
    """A "did you mean" clause for a name that is not among the known ones; empty when nothing is near.

    >>> nearest("smoker", ["smoke", "asia", "lung"])
    " Did you mean 'smoke'?"
    >>> nearest("zzz", ["smoke"])
    ''
    """
    by_folded_case = {each.lower(): each for each in reversed(list(known))}
    close = difflib.get_close_matches(name.lower(), by_folded_case, n=limit, cutoff=0.6)
    names = " or ".join(repr(by_folded_case[each]) for each in close)
    return f" Did you mean {names}?" if names else ""


class SumoutError(Exception):
    """Base of every error that sumout raises on purpose."""


class ModelError(SumoutError, ValueError):
    """A program breaks a rule of the modelling language: names, plates, shapes, supports."""


class DuplicateSiteError(ModelError, RuntimeError):
    """Two sites of one trace share a name; a ``RuntimeError`` too, as which programs for Pyro may catch it."""


class ReplayError(ModelError, RuntimeError):
    """A value to replay is no latent one; a ``RuntimeError`` too, as which programs for Pyro may catch it."""


class UnknownSiteError(ModelError, KeyError):
    """There is no site of this name; a ``KeyError`` too, as which programs for Pyro may catch it."""

    __str__ = Exception.__str__  # that of KeyError puts the message in quotes


class PlateError(ModelError):
    """Plates collide, or a size disagrees with data."""


class EnumerationError(ModelError, NotImplementedError):
    """A site cannot be enumerated, or a latent site is left that no exact method covers.

    It is a ``NotImplementedError`` too, as which programs for Pyro may catch it.
    """


class ControlFlowError(EnumerationError):
    """Python decides on the value of a site that has all its values at once.

    Attributes:
        sites: the sites that the value depends on.
        automatic: those of them that may be enumerated sequentially instead, if that is all of them.
    """

    def __init__(self, message: str, sites: Iterable[str] = (), automatic: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.sites = tuple(sites)
        self.automatic = frozenset(automatic)


class GraphError(SumoutError, ValueError):
    """A factor graph breaks one of its invariants."""


class PlanError(SumoutError, ValueError):
    """No plan eliminates the variables, for instance because the plates are not tree-shaped."""


class MemoryLimitError(SumoutError, MemoryError):
    """A plan needs more memory than the limit; raised before anything is allocated."""


class EvidenceError(SumoutError, ValueError):
    """Evidence names an unknown variable or state."""


class ImpossibleEvidenceError(SumoutError, ValueError):
    """The evidence has probability zero, so no posterior exists."""


class ParseError(SumoutError, ValueError):
    """A network or evidence file is malformed.

    The message starts with ``file:line:`` and says what was expected there.
    """

    def __init__(self, path: object, line: int, problem: str) -> None:
        self.path, self.line, self.problem = path, line, problem
        super().__init__(path, line, problem)

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.problem}"


class MissingExtraError(SumoutError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}. Install it with: pip install 'sumout[{extra}]'"
        )
