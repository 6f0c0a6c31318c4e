"""Curve to text: the rollouts of the step."""

from workbench.widgets.views.base import View


class TextView(View):
    """The token view alone."""

    title = "Text"
    explains = "Click a point of a curve: its step's rollouts, by prompt and group, every token with its numbers."
    figure = False

    def draw(self) -> None:
        self.say(self.explains)
