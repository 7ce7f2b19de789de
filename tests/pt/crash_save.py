"""save_pretrained killed at random moments: the folder must hold the old checkpoint or the new one, config included.

    python tests/pt/crash_save.py --runs 200

Each run copies an old checkpoint, forks a process that saves a new one over it, kills that with SIGKILL after a random
time, and loads what is left. It prints N/N and ends with 1 if a single run shows anything else.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

from pretrained import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

SCENARIOS = {
    "one file over one file": ("5GB", "5GB"),
    "shards over one file": ("5GB", "100KB"),
    "one file over shards": ("100KB", "5GB"),
    "fewer shards over more": ("60KB", "200KB"),
}


def make(seed: int) -> LlamaForCausalLM:
    """A model of about a megabyte whose config says which one it is."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=600,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            marker=f"seed {seed}",
        )
    )


def save_in_child(model: LlamaForCausalLM, folder: Path, size: str, seconds: float | None) -> bool:
    """Saves in a forked process, killed after `seconds`; returns whether it got to the end."""
    pid = os.fork()
    if pid == 0:
        try:
            model.save_pretrained(folder, max_shard_size=size)
        except BaseException:
            os._exit(1)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    if status not in (0, signal.SIGKILL):
        raise RuntimeError(f"the saver ended with status {status}")
    return status == 0


def what_is_there(folder: Path, models: dict[str, LlamaForCausalLM]) -> str:
    """Which of the models the folder holds."""
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    state = loaded.state_dict()
    for name, model in models.items():
        if all(torch.equal(state[key], tensor) for key, tensor in model.state_dict().items()):
            return name if loaded.config.marker == model.config.marker else f"{name} weights, {loaded.config.marker}"
    return "a mixture"


def duration(model: LlamaForCausalLM, folder: Path, size: str) -> float:
    """Seconds that a save takes here, the process's start included."""
    start = time.perf_counter()
    save_in_child(model, folder, size, None)
    return time.perf_counter() - start


def run(runs: int, seed: int, work: Path) -> Counter[str]:
    """Counts of what was found after each kill."""
    rng = random.Random(seed)
    models = {"old": make(1), "new": make(2)}
    found: Counter[str] = Counter()
    for name, (before, after) in SCENARIOS.items():
        template, target = work / "template", work / "target"
        models["old"].save_pretrained(template, max_shard_size=before)
        shutil.copytree(template, target)
        typical = max(duration(models["new"], target, after) for _ in range(3))
        for _ in range(max(1, runs // len(SCENARIOS))):
            shutil.rmtree(target)
            shutil.copytree(template, target)
            finished = save_in_child(models["new"], target, after, rng.uniform(0, 1.1 * typical))
            outcome = what_is_there(target, models)
            if finished and outcome != "new":
                outcome = f"{outcome} after a completed save"
            if outcome not in ("old", "new"):
                print(f"{name}: {outcome}: {sorted(p.name for p in target.iterdir())}")
            # The next save must find a clean folder and leave one.
            models["new"].save_pretrained(target, max_shard_size=after)
            left = [p.name for p in target.iterdir() if not p.name.startswith(("model", "config", "generation_config"))]
            left += [p.name for p in work.iterdir() if p not in (template, target)]
            found[f"left behind {left}" if left else outcome] += 1
        shutil.rmtree(template)
        shutil.rmtree(target)
    return found


def main(runs: int, seed: int = 0) -> bool:
    """Runs the harness in a scratch folder and prints the tally."""
    torch.set_num_threads(1)  # OpenMP does not survive a fork
    with tempfile.TemporaryDirectory() as scratch:
        found = run(runs, seed, Path(scratch))
    good, total = found["old"] + found["new"], sum(found.values())
    print(f"killed saves: {good}/{total} old or new ({found['old']} old, {found['new']} new)")
    return good == total


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.exit(0 if main(arguments.runs, arguments.seed) else 1)
