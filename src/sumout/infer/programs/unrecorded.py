"""Runs that the traces around do not record."""

from __future__ import annotations

from sumout.effects import Message, Messenger


class Unrecorded(Messenger):
    """Lets handlers outside see a run, but no trace of theirs record it."""

    def _pyro_sample(self, msg: Message) -> None:
        if "_do_not_trace" not in msg.infer:
            msg.infer["_do_not_trace"] = self

    def _pyro_post_sample(self, msg: Message) -> None:
        if msg.infer.get("_do_not_trace") is self:
            del msg.infer["_do_not_trace"]
