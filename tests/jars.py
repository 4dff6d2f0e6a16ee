"""Jars of the tests, that Maven fetches once and whose hashes are pinned. Each set has a folder with a pom.xml that names
them, and their version: `kafka`, the broker; `s3proxy`, an object store; `spark_kafka`, Spark's connector.

python tests/jars.py fetch kafka    # the jars, if they are not there
python tests/jars.py pin kafka      # after a change of tests/kafka/pom.xml: fetches them and writes jars.sha256
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
FETCH_TIMEOUT_S = 300


def fetch(name: str) -> Path:
    """The folder of a set: .cache/<name>/<version>/ at the root, filled if its jars are not all there as pinned."""
    version = ET.parse(HERE / name / "pom.xml").getroot().findtext(f"properties/{name}.version")
    folder = HERE.parent / ".cache" / name / str(version)
    pins = _pins(name).read_text()
    if _hashes(folder) == pins:
        return folder
    with _fetched(name, folder.parent) as fetched:
        if (got := _hashes(fetched)) != pins:
            wrong = sorted(set(got.splitlines()) ^ set(pins.splitlines()))
            raise RuntimeError(f"the jars of {name} are not those of {_pins(name)}; these lines differ: {wrong}")
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)
        fetched.rename(folder)
    return folder


def pin(name: str) -> None:
    """Write the hashes of what a set's pom.xml names."""
    with _fetched(name, None) as fetched:
        _pins(name).write_text(_hashes(fetched))


def _pins(name: str) -> Path:
    return HERE / name / "jars.sha256"


@contextlib.contextmanager
def _fetched(name: str, beside: Path | None) -> Iterator[Path]:
    """The jars in a temporary folder, from whichever repository Maven is configured to use."""
    mvn = shutil.which("mvn")
    if mvn is None:
        raise RuntimeError(
            "the tests' jars are fetched with Maven, once; put `mvn` on the PATH (Debian's package: maven)"
        )
    if beside:
        beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=beside, prefix="fetch-") as temporary:
        target = Path(temporary) / "jars"
        options = ["--quiet", "--batch-mode", "--strict-checksums", "--file", str(HERE / name / "pom.xml")]
        goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={target}"]
        done = subprocess.run(
            [mvn, *options, *goal], capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"Maven could not fetch {name}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        yield target


def _hashes(folder: Path) -> str:
    """What `sha256sum *.jar` prints in a folder."""
    jars = sorted(folder.glob("*.jar"), key=lambda jar: jar.name)
    return "".join(f"{hashlib.sha256(jar.read_bytes()).hexdigest()}  {jar.name}\n" for jar in jars)


if __name__ == "__main__":
    commands = {"fetch": lambda name: print(f"{fetch(name).name} is there"), "pin": pin}
    if len(sys.argv) != 3 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](sys.argv[2])
