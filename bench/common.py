"""What the commands of the benchmark share: the machine, and a process that prints a line of JSON."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path


COMPILED = ", compiled"
"""What the name of the peer's fastest way ends with where that is torch.compile's."""


def cpu():
    """The processor's name, with family and model where it tells them (virtual machines hide the rest), and its flags."""
    lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
    told = {key.strip(): value.strip() for key, _, value in lines}
    name = told.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in told:
        name += f", family {told['cpu family']} model {told['model']}"
    return name, set((told.get("flags") or told.get("Features", "")).split())


def instruction_set(flags):
    """The widest instruction set that matters here."""
    words = (("amx", "amx_bf16"), ("avx512-bf16", "avx512_bf16"), ("avx512", "avx512f"), ("avx2", "avx2"), ("neon", "asimd"))
    for isa, flag in words:
        if flag in flags:
            return isa
    return "scalar"


def machine():
    """What the results were measured on."""
    name, flags = cpu()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cpu": name, "cores": os.cpu_count(), "memory_gib": round(memory, 1), "isa": instruction_set(flags), "system": platform.system()}


def last_json(threads, line, seconds=None):
    """Run a command and parse the last line that it prints; None if it takes longer than `seconds`."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "CANDLE_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, str(threads))
    try:
        done = subprocess.run([str(word) for word in line], capture_output=True, text=True, env=environment, timeout=seconds)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, line))}\nexit {done.returncode}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])
