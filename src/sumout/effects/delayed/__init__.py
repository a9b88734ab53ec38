"""Values that are not known yet: tensors that remember which delayed sites they are made of, and how.

``links`` says what such a value is made of, ``value`` is the tensor, ``rules`` what torch's functions make of it.
"""

from sumout.effects.delayed import rules as _rules  # noqa: F401  (gives Delayed its functions)
from sumout.effects.delayed.links import Link
from sumout.effects.delayed.value import Delayed

__all__ = ["Delayed", "Link"]
