"""A few runs of the crash harness; `python tests/pt/crash_save.py --runs 200` makes the full count."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_killed_save_leaves_old_or_new():
    script = Path(__file__).with_name("crash_save.py")
    done = subprocess.run([sys.executable, script, "--runs", "24"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed saves: 24/24 old or new" in done.stdout
