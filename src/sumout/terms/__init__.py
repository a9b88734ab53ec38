"""The intermediate representation: tensors and distributions as funsors, whose inputs are named.

A program's tensors have positional batch dims; a dim-to-name map, such as an enumerated site's
``{-3: "z", -1: "docs"}``, gives these dims names. `to_funsor` and `to_data` go there and back.
"""

from __future__ import annotations

from sumout.terms import backend
from sumout.terms.convert import to_data, to_funsor
from sumout.terms.names import checked_dim_names, checked_name_dims, named_dims
from sumout.terms.tensors import named_tensor

__all__ = [
    "backend",
    "checked_dim_names",
    "checked_name_dims",
    "named_dims",
    "named_tensor",
    "to_data",
    "to_funsor",
]
