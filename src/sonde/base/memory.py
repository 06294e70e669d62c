"""Memory while a network is trained: what a step frees is what the next one needs.

glibc gives large pieces back to the system when they are freed and gets them anew, page by page, at the next step:
4,700 page faults a step, a tenth of its time, for a small CNN. While a network is trained they are kept. And Python's
collector goes through everything that was ever imported (8 ms every few hundred steps): it need not.
"""

from __future__ import annotations

import ctypes
import functools
import gc

# Of mallopt (malloc.h): the size from which a piece is a mapping of its own, and how much may lie unused at the end.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEEP = (1 << 30, (1 << 31) - 1)
# What glibc comes to by itself, where large pieces are freed often.
_USUAL = (1 << 25, 1 << 26)


def keep() -> None:
    """From now on freed memory stays with this process, where its C library is glibc.

    And the objects that are there now are not gone through: what becomes garbage later is found as ever.
    """
    gc.freeze()
    _set(*_KEEP)


def give_back() -> None:
    """As before, and what is unused goes to the system."""
    gc.unfreeze()
    library = _library()
    if library is not None and _set(*_USUAL):
        library.malloc_trim(0)


def _set(mmap: int, trim: int) -> bool:
    library = _library()
    if library is None:
        return False
    return bool(library.mallopt(_MMAP_THRESHOLD, mmap) and library.mallopt(_TRIM_THRESHOLD, trim))


@functools.cache
def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(None)
        # Other libraries (musl, macOS) have no mallopt, or one that does nothing of the kind.
        return library if library.gnu_get_libc_version and library.mallopt and library.malloc_trim else None
    except (OSError, AttributeError, TypeError):
        return None
