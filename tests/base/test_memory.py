"""Freed memory that is kept costs no page faults; given back, it does."""

from __future__ import annotations

import platform
import resource

import pytest
import torch

from sonde.base import memory

PAGE = 4096


def faults() -> int:
    """Page faults of 20 tensors of 48 MiB, each freed before the next."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.empty(12 * 2**20).fill_(1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told anything")
def test_freed_memory_is_kept_until_it_is_given_back() -> None:
    a_tensor = 48 * 2**20 // PAGE
    memory.keep()
    try:
        faults()
        assert faults() < a_tensor / 2
    finally:
        memory.give_back()
    assert faults() > a_tensor / 2
