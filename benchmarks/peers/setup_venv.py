"""Make the environment of a peer, once per change of its pins.

`python benchmarks/peers/setup_venv.py [feast|glide|murr]`

Peers pin versions that conflict with this project's, so each has a `.venv` of its own here. Prints the path of its
interpreter.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Per peer its pins and its environment.
PEERS = {
    "feast": ("requirements.txt", ".venv"),
    "glide": ("glide.txt", ".venv-glide"),
    "murr": ("murr.txt", ".venv-murr"),
}


def peer_python(name: str = "feast") -> Path:
    """The interpreter that has a peer, installed first if it is not there or the pins have changed."""
    pins, venv = (HERE / part for part in PEERS[name])
    python = venv / "bin" / "python"
    stamp = venv / ".installed"
    wanted = hashlib.sha256(pins.read_bytes() + sys.version.encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    print(f"Setting up {venv.name} for {name} …", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True, stdout=sys.stderr)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--require-hashes", "-r", str(pins)], check=True, stdout=sys.stderr)
    stamp.write_text(wanted)
    return python


if __name__ == "__main__":
    print(peer_python(*sys.argv[1:]))
