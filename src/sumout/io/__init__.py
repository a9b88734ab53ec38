"""Networks and evidence from files: BIF, UAI, JSON and plain text.

>>> path = getfixture("tmp_path") / "rain.bif"
>>> _ = path.write_text('''
... network rain { }
... variable rain { type discrete [ 2 ] { no, yes }; }
... variable wet { type discrete [ 2 ] { no, yes }; }
... probability ( rain ) { table 0.8, 0.2; }
... probability ( wet | rain ) { (no) 0.9, 0.1; (yes) 0.0, 1.0; }
... ''')
>>> [factor.name for factor in read_network(path).factors]
['rain', 'wet | rain']
"""

from __future__ import annotations

from sumout.io.bif import parse_bif, read_bif
from sumout.io.evidence import parse_evidence, read_evidence
from sumout.io.formats import parse_network, read_network
from sumout.io.network import Network
from sumout.io.uai import parse_uai, read_uai

__all__ = [
    "Network",
    "parse_bif",
    "parse_evidence",
    "parse_network",
    "parse_uai",
    "read_bif",
    "read_evidence",
    "read_network",
    "read_uai",
]
