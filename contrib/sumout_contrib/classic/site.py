"""A site under the classic names of its log-probabilities."""

from __future__ import annotations

from typing import Any, cast

from sumout.poutine.runtime import Message

_MODERN = {"log_pdf": "log_prob_sum", "batch_log_pdf": "log_prob"}


class Site(Message):
    """A site that also answers to ``log_pdf`` (a scalar) and ``batch_log_pdf`` (of the batch shape).

    These are other names of ``log_prob_sum`` and ``log_prob``: computed when they are read, kept as long as the
    site is the same, and computed anew after an edit. A listing of the keys has them under the modern names.

    >>> import torch
    >>> from sumout.distributions import Normal
    >>> site = Site(type="sample", name="z", fn=Normal(0.0, 1.0), value=torch.tensor(0.0))
    >>> site["log_pdf"], "log_pdf" in site
    (tensor(-0.9189), True)
    >>> site["value"] = torch.tensor(2.0)
    >>> site["log_pdf"]
    tensor(-2.9189)
    """

    __slots__ = ()

    @staticmethod
    def taking_over(site: Message) -> Site:
        """The same object as a classic site, for a message that nobody else holds."""
        site.__class__ = Site  # it has the same slots
        return cast("Site", site)

    def copy(self) -> Site:
        """A site of its own with the same contents."""
        return Site.taking_over(super().copy())

    __copy__ = copy

    def __reduce__(self) -> tuple[Any, ...]:
        return Site.of, (dict(self),)

    def __getitem__(self, key: str) -> Any:
        return super().__getitem__(_MODERN.get(key, key))

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(_MODERN.get(key, key), value)

    def __delitem__(self, key: str) -> None:
        super().__delitem__(_MODERN.get(key, key))

    def __contains__(self, key: object) -> bool:
        return super().__contains__(_MODERN.get(key, key) if isinstance(key, str) else key)
