"""Make the environment that the peer runs in, once per change of its pins: `python benchmarks/peers/setup_venv.py`.

Feast pins versions that conflict with this project's, so it has a `.venv` of its own here. Prints the path of its
interpreter.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PINS = HERE / "requirements.txt"
VENV = HERE / ".venv"


def peer_python() -> Path:
    """The interpreter that has Feast, installed first if it is not there or the pins have changed."""
    python = VENV / "bin" / "python"
    stamp = VENV / ".installed"
    wanted = hashlib.sha256(PINS.read_bytes() + sys.version.encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    print(f"Setting up {VENV.name} for the peer …", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True, stdout=sys.stderr)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--require-hashes", "-r", str(PINS)], check=True, stdout=sys.stderr)
    stamp.write_text(wanted)
    return python


if __name__ == "__main__":
    print(peer_python())
