"""The page that links every report."""

import json
import re
from html import escape
from importlib.resources import files
from pathlib import Path

from workbench.report.claims import VERDICTS
from workbench.report.export import CARD_ID
from workbench.store.files import write_shared

CARD = re.compile(rf'<script [^>]*id="{CARD_ID}"[^>]*>(.*?)</script>', re.DOTALL)
CARD_BYTES = 65_536  # the card stands in the first lines of a report
COLUMNS = ("", "report", "claims", "parameters set", "state and date")
THUMBNAIL = re.compile(r'<svg [^<>]*>(<polyline points="[0-9., -]*" [A-Za-z0-9="#. -]*/>)*</svg>')
"""What a report's card may draw on the index; anything else it brings is left out."""


def index_page(reports_root) -> Path:
    """Write `index.html` into `reports_root`, newest report first, and return its path. Reports describe themselves: a
    report copied here from another machine is listed like the others; other HTML files are left out."""
    root = Path(reports_root)
    cards = [(path, card) for path in root.rglob("*.html") if (card := read_card(path))]
    cards.sort(key=lambda entry: str(entry[1].get("date", "")), reverse=True)
    rows = "\n".join(_row(path.relative_to(root), card) for path, card in cards)
    head = "".join(f"<th>{column}</th>" for column in COLUMNS)
    css = (files("workbench.report") / "report.css").read_text()
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Entropy workbench: reports</title>'
        f"<style>{css}</style></head><body><main class='wide'>"
        f"<h1>Reports</h1><p>{len(cards)} report{'' if len(cards) == 1 else 's'}, newest first.</p>"
        f'<table class="wb-index"><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table>'
        "</main></body></html>\n"
    )
    write_shared(root / "index.html", page)
    return root / "index.html"


def read_card(path: Path) -> dict | None:
    """What a report says of itself (title, parameters, date, state, reason), None for any other file."""
    with path.open("rb") as file:
        start = file.read(CARD_BYTES).decode("utf-8", errors="replace")
    found = CARD.search(start)
    if not found:
        return None
    try:
        card = json.loads(found[1])
    except ValueError:
        return None
    return card if isinstance(card, dict) and isinstance(card.get("parameters"), dict) else None


def _row(path: Path, card: dict) -> str:
    parameters = ", ".join(f"{name} = {value}" for name, value in card["parameters"].items()) or "defaults"
    state = f"{card.get('state')}: {card['reason']}" if card.get("reason") else str(card.get("state"))
    link = f'<a href="{escape(path.as_posix(), quote=True)}">{escape(str(card.get("title")))}</a>'
    drawing = str(card.get("thumbnail", ""))
    cells = (
        drawing if THUMBNAIL.fullmatch(drawing) else "",
        f"{link}<br>{escape(str(card.get('question', '')))}",
        _verdicts(card.get("verdicts")),
        escape(parameters),
        f"{escape(state)}<br><small>{escape(str(card.get('date')))}</small>",
    )
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _verdicts(counts: object) -> str:
    """Claims by verdict, one line each."""
    known = counts if isinstance(counts, dict) else {}
    counts = [(verdict, known[verdict]) for verdict in VERDICTS if known.get(verdict)]
    return "<br>".join(f"{int(count)}&nbsp;{verdict.replace(' ', '&nbsp;')}" for verdict, count in counts)
