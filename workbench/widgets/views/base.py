"""What every view of the explorer has: a title, controls, and a `draw` for the run and step on show."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, ClassVar

import ipywidgets

if TYPE_CHECKING:
    from workbench.widgets.explorer import Explorer

WIDE = {"description_width": "initial"}


class View:
    """One way to look. `draw` raises ValueError in one sentence when the run lacks what the view needs."""

    title: ClassVar[str]
    explains: ClassVar[str]
    """one sentence on what is to be seen"""
    figure: ClassVar[bool] = True
    """whether the view draws in the shared figure"""
    tokens: ClassVar[bool] = True
    """whether the tokens of the step belong below it"""

    def __init__(self, explorer: Explorer):
        self.explorer = explorer
        self.note = ipywidgets.HTML()
        self.controls = ipywidgets.VBox([self.note])

    def draw(self) -> None:
        """Bring the view up to date with the explorer's run and step."""

    def leave(self) -> None:
        """The view is no longer on show."""

    def say(self, words: str) -> None:
        """A line of plain text above the figure."""
        self.note.value = f'<p role="status" style="margin:2px 8px;line-height:1.45">{escape(words)}</p>'

    def dropdown(self, label: str, options, value=None) -> ipywidgets.Dropdown:
        """A dropdown that redraws the view."""
        options = list(options)
        chosen = ipywidgets.Dropdown(
            options=options, value=value if value is not None else options[0], description=label, style=WIDE
        )
        chosen.observe(lambda _change: self.explorer.redraw(), "value")
        return chosen
