"""From an executed notebook to what is shared: the self-contained HTML report, the index of all reports, provenance.

`templates/`, `report.css` and `figures.js` are the page; `figures` makes plotly outputs paint offline.
"""

from workbench.report.claims import Claims
from workbench.report.export import export_html
from workbench.report.index import index_page, read_card
from workbench.report.parameters import Parameter, read_parameters
from workbench.report.provenance import Provenance, provenance
from workbench.report.share import share

__all__ = [
    "Claims",
    "Parameter",
    "Provenance",
    "export_html",
    "index_page",
    "provenance",
    "read_card",
    "read_parameters",
    "share",
]
