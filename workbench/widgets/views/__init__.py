"""The views of the explorer, one file each: what they show of the run and step chosen, and their controls."""

from workbench.widgets.views.base import View
from workbench.widgets.views.diff import ConfigView, DiffView
from workbench.widgets.views.frontier import FrontierView
from workbench.widgets.views.ledger import LedgerView
from workbench.widgets.views.quadrants import QuadrantView
from workbench.widgets.views.strip import StripView
from workbench.widgets.views.text import TextView
from workbench.widgets.views.warning import WarningView
from workbench.widgets.views.whatif import WhatIfView

VIEWS: tuple[type[View], ...] = (
    TextView,
    LedgerView,
    WhatIfView,
    QuadrantView,
    StripView,
    DiffView,
    WarningView,
    FrontierView,
    ConfigView,
)

__all__ = ["VIEWS", "View"]
