"""Freed memory that is kept costs no page faults; given back, it does."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# In a process of its own: what other tests have freed would serve as well.
SCRIPT = """
import resource
import torch
from sonde.base import memory

def faults():  # of 20 tensors of 48 MiB, each freed before the next
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.empty(12 * 2**20).fill_(1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults())
memory.keep()
faults()
print(faults())
memory.give_back()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told anything")
def test_freed_memory_is_kept_until_it_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    before, kept, after = map(int, done.stdout.split())
    # However large a page is: a tensor's faults are a twentieth of those without keeping.
    assert before > 0
    assert kept < before / 40
    assert after > before / 40
