"""How many cores this process may really use."""

from __future__ import annotations

import math
import os
from pathlib import Path


def available_cores() -> int:
    """Return the cores of the CPU affinity mask, or fewer when a cgroup v2 quota allows fewer; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            cores = min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        pass
    return max(1, cores)
