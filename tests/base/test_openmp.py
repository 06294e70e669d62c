"""While other work wants the cores, threads stop spinning; what is computed and by how many stays the same."""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
import time
from collections.abc import Callable

import pytest
import torch

from sonde.base import openmp

CROWD = "sonde crowd"


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in openmp.SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(openmp, "LOOK", 0.01)
    if torch.get_num_threads() < 2:
        pytest.skip("one thread waits for nobody")


def crowd() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == CROWD]


def soon(holds: Callable[[], object]) -> bool:
    for _ in range(500):
        if holds():
            return True
        time.sleep(0.01)
    return False


def test_a_crowd_comes_while_threads_queue_and_goes_when_they_do_not(
    bare: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openmp, "queued", lambda: 0.0)
    with openmp.considerate():
        time.sleep(0.1)
        assert not crowd()
        ever = itertools.count()
        monkeypatch.setattr(openmp, "queued", lambda: float(next(ever)))
        assert soon(crowd)
        size = len(crowd())
        time.sleep(0.1)
        assert len(crowd()) == size
        monkeypatch.setattr(openmp, "queued", lambda: 0.0)
        assert soon(lambda: not crowd())
        monkeypatch.setattr(openmp, "queued", lambda: float(next(ever)) + 1e6)
        assert soon(crowd)
    assert soon(lambda: not crowd())
    assert not [thread for thread in threading.enumerate() if thread.name == "sonde openmp"]


def test_a_crowd_changes_neither_threads_nor_bits(bare: None) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(300, 500), torch.randn(500, 300)
    alone, threads = a @ b, torch.get_num_threads()
    leave = openmp._gather()
    try:
        assert torch.get_num_threads() == threads
        assert torch.equal(a @ b, alone)
    finally:
        leave.set()


def test_one_watcher_is_enough(bare: None) -> None:
    with openmp.considerate(), openmp.considerate():
        assert sum(thread.name == "sonde openmp" for thread in threading.enumerate()) == 1
    with openmp.considerate():
        assert sum(thread.name == "sonde openmp" for thread in threading.enumerate()) == 1


@pytest.mark.parametrize("name", openmp.SETTINGS)
def test_what_the_user_set_stays(bare: None, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    with openmp.considerate():
        assert not [thread for thread in threading.enumerate() if thread.name == "sonde openmp"]


def test_nothing_happens_where_the_system_does_not_tell(bare: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openmp, "queued", lambda: None)
    with openmp.considerate():
        assert not [thread for thread in threading.enumerate() if thread.name == "sonde openmp"]


def test_threads_that_outnumber_the_cores_queue() -> None:
    before = openmp.queued()
    if before is None:
        pytest.skip("this system does not tell")
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            hashlib.sha256(bytes(1 << 20))

    threads = [threading.Thread(target=work) for _ in range(len(os.sched_getaffinity(0)) + 2)]
    for thread in threads:
        thread.start()
    try:
        assert soon(lambda: (openmp.queued() or 0) > before + 0.1)
    finally:
        over.set()
        for thread in threads:
            thread.join()
