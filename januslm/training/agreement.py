"""Before the first update all ranks show what they will do; a rank that differs is named."""

import socket
from collections.abc import Mapping

from januslm.config import Refused
from januslm.training.checkpoint import gathered
from januslm.training.engine import World
from januslm.training.fingerprint import differences

SHOWN = 5  # keys, and ranks, that a refusal names


def agree(world: World, facts: Mapping) -> list[str]:
    """The host of each rank; Refused, the same on all ranks, where one is not as rank 0.

    facts: see fingerprint.fingerprint.
    """
    mine = socket.gethostname(), facts
    found = gathered(mine)
    first_host, first = found[0]
    wrong = []
    for rank, (host, theirs) in enumerate(found):
        keys = list(differences(first, theirs))
        if keys:
            named = "; ".join(f"{k}: {a!r} there, {b!r} here" for k, a, b in keys[:SHOWN])
            more = f"; and {len(keys) - SHOWN} more keys" if len(keys) > SHOWN else ""
            wrong.append(f"rank {rank} on {host}: {named}{more}")
    if wrong:
        more = f"; and {len(wrong) - SHOWN} more ranks" if len(wrong) > SHOWN else ""
        raise Refused(
            f"not all ranks would train the same as rank 0 on {first_host}: "
            f"{'; '.join(wrong[:SHOWN])}{more}"
        )
    return [host for host, _ in found]
