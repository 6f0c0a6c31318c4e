"""Where a result comes from, as a table for the last cell of a notebook."""

from html import escape


class Provenance:
    """Two-column table of a run's identity and surroundings; HTML in notebooks, plain lines elsewhere."""

    def __init__(self, entries: dict[str, str]):
        self.entries = entries

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in self.entries.items())
        return f"<table>{rows}</table>"

    def __repr__(self) -> str:
        return "\n".join(f"{key}: {value}" for key, value in self.entries.items())


def provenance(run) -> Provenance:
    """Run id, state and all of `provenance.json` (nested names joined by `/`), values as text."""
    status = run.status
    entries = {"run": run.id, "state": f"{status.get('state')}, step {status.get('step')} of {status.get('steps')}"}
    return Provenance(entries | _flat(run.provenance))


def _flat(tree: dict, prefix: str = "") -> dict[str, str]:
    flat = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat |= _flat(value, f"{name}/")
        else:
            flat[name] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return flat
