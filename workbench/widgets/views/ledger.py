"""The entropy ledger of the step."""

import ipywidgets

from workbench.metrics.ledger import DIVISIONS, ledger
from workbench.plots import waterfall
from workbench.widgets.views.base import View


class LedgerView(View):
    """ΔH by parts, with the first-order prediction; a click on a bar sets its tokens apart in the text."""

    title = "Ledger"
    explains = "Which tokens a step's change of entropy comes from. Click a bar to see its tokens."

    def __init__(self, explorer):
        super().__init__(explorer)
        self.division = self.dropdown("divide by", DIVISIONS)
        self.controls.children = (ipywidgets.HBox([self.division]), self.note)
        self._held = None

    def draw(self) -> None:
        tables = self.explorer.tables()
        held = ledger(tables.sequences, tables.tokens, self.division.value)
        self._held = held
        scored = f"{held.scored:,} of {held.tokens:,} tokens scored again"
        fit = f"; one fitted rate, R² over tokens {held.r2:.2f}" if held.r2 == held.r2 else ""
        total = f"ΔH of step {tables.step} on its own tokens: {held.change:+.5f} nats = sum of the bars".replace(
            "-", "−"
        )
        self.say(f"{total} ({scored}{fit}). {self.explains}")
        fig = waterfall(held.table, held.change, self.division.value, tables.step)
        self.explorer.detail.show(fig, held.table, clicked=self._mark)

    def _mark(self, _trace, place: int) -> None:
        if self._held is not None and place < len(self._held.table):
            part = self._held.table["part"][place]
            self.explorer.mark(self._held.part == place, f"tokens of “{part}”")
