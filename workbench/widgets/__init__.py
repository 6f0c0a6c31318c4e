"""Interactive views of runs: the explorer of many runs, the monitor of one that trains, and the token view (live widget
and static HTML from one ESM file).

`frontend` decides whether somebody is watching; `token_data` bounds what a view holds.
"""

from workbench.widgets.frontend import in_kernel, live_front_end
from workbench.widgets.live import LiveCurves, state_line
from workbench.widgets.token_view import StaticTokenView, TokenView, token_view

__all__ = ["LiveCurves", "StaticTokenView", "TokenView", "in_kernel", "live_front_end", "state_line", "token_view"]
