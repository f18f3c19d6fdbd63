"""What a worker may use up before it gives in."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds that the command line sets; they belong to a machine, not to a study.

    Attributes:
        memory: bytes that one training process may hold (of the GPU's memory where it trains on one); 0: all
            there is.
        trial_timeout: seconds without an epoch after which a training process is taken to hang.
        storage_patience: seconds that a database may be away before a worker gives up.
    """

    memory: int = 0
    trial_timeout: float = 3600.0
    storage_patience: float = 600.0
