"""Networks and evidence from files and to files.

Networks: BIF, XMLBIF, UAI, Hugin and GeNIe. Evidence: UAI, CSV, JSON and plain text.

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
from sumout.io.from_graph import network_of
from sumout.io.genie import parse_dsl, read_dsl
from sumout.io.hugin import parse_hugin, read_hugin
from sumout.io.network import Network
from sumout.io.pgmpy_models import from_pgmpy, to_pgmpy
from sumout.io.pyagrum_models import from_pyagrum, to_pyagrum
from sumout.io.query import parse_query, read_query
from sumout.io.rows import (
    EvidenceRows,
    parse_evidence_csv,
    parse_evidence_samples,
    read_evidence_csv,
    read_evidence_samples,
)
from sumout.io.uai import parse_uai, read_uai
from sumout.io.write import write_network
from sumout.io.xdsl import parse_xdsl, read_xdsl
from sumout.io.xmlbif import parse_xmlbif, read_xmlbif

__all__ = [
    "EvidenceRows",
    "Network",
    "from_pgmpy",
    "from_pyagrum",
    "network_of",
    "parse_bif",
    "parse_dsl",
    "parse_evidence",
    "parse_evidence_csv",
    "parse_evidence_samples",
    "parse_hugin",
    "parse_network",
    "parse_query",
    "parse_uai",
    "parse_xdsl",
    "parse_xmlbif",
    "read_bif",
    "read_dsl",
    "read_evidence",
    "read_evidence_csv",
    "read_evidence_samples",
    "read_hugin",
    "read_network",
    "read_query",
    "read_uai",
    "read_xdsl",
    "read_xmlbif",
    "to_pgmpy",
    "to_pyagrum",
    "write_network",
]
