"""The cells of the notebook run one after the other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebook" / "tutorial.ipynb"
# Runs after the cells, and checks what they computed.
CHECKS = """
assert matrix.tolist()[:2] == [[20.0, 5.0], [10.0, 3.0]]
assert training_set["price"].tolist() == [12.0, 10.0]
assert report.differing == 0
"""


def test_the_cells_run_in_order(tmp_path: Path) -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in cells), "outputs are not committed"
    program = "\n".join([*code, CHECKS])
    command = [sys.executable, "-W", "error", "-c", program]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "create FeatureView product_stats" in ran.stdout
