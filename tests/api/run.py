#!/usr/bin/env python3
"""The published client against the real service: run.py [-k TEXT]

Installs the package sandbox0 with pip into target/rigs/api, starts `s0 serve` (`S0_BIN`) with a state of its own, and
drives it with that client. One line for each test, and "N passed, N failed" at the end.
"""
import os
import pathlib
import shutil
import subprocess
import sys
import venv

# The second is what the first needs and does not ask for, the third checks the service's description.
PACKAGES = ["sandbox0==0.3.1", "python-dateutil==2.9.0.post0", "openapi-spec-validator==0.9.0"]
ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
PLACE = TARGET / "rigs" / "api"


def installed():
    """The Python that has the package; made when it is missing or another one is wanted."""
    python, mark = PLACE / "bin" / "python3", PLACE / "installed"
    if not mark.exists() or mark.read_text().split() != PACKAGES or not python.exists():
        shutil.rmtree(PLACE, ignore_errors=True)
        venv.create(PLACE)
        subprocess.run([sys.executable, "-m", "pip", "--python", python, "install", "--quiet",
                        "--disable-pip-version-check", *PACKAGES], check=True)
        mark.write_text(" ".join(PACKAGES))
    return python


def main():
    try:
        python = installed()
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"FAIL {PACKAGES[0]} could not be installed: {error}")
        print("0 passed, 1 failed")
        return 1
    # Nothing but the venv counts, and nothing is left in the source tree.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    cases = pathlib.Path(__file__).with_name("cases.py")
    return subprocess.run([python, cases, *sys.argv[1:]], env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
