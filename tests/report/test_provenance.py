"""The provenance table."""

from tests.synthetic import HOSTILE, write_run, write_status
from workbench.report import provenance
from workbench.store import open_run


def test_nested_provenance_is_flattened_and_escaped(tmp_path):
    folder = write_run(tmp_path / "run-1", steps=8)
    write_status(folder, HOSTILE)
    run = open_run(folder)
    table = provenance(run)
    assert table.entries["versions/torch"] == "2.13.0" and table.entries["git/dirty"] == "False"
    assert "<img" not in table._repr_html_() and "&lt;img" in table._repr_html_()
    assert "run: run-1" in repr(table)
