"""What differs between the stages: the defaults of the deployment's parameters, and how many zones have a NAT."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """Defaults of one stage; each can be overridden when the stack is deployed.

    Parameters
    ----------
    nat_zones
        In how many of the two zones there is a NAT: with one, the loss of its zone ends outbound calls.
    readers
        Aurora readers, each of them a failover target: without one a failover waits for a new instance.
    min_acu, max_acu
        Aurora capacity units, 2 GiB of memory each. 0.5 at least: the proxy holds a connection to each instance, and
        with one open Aurora does not pause.
        https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/aurora-serverless-v2-auto-pause.html
    backup_days
        How far back the database can be restored to any second.
    deletion_protection
        Whether the database refuses to be deleted with the stack.
    interface_endpoints
        Whether Lambda, KMS, SQS and Secrets Manager are reached inside the network instead of over NAT.
    rate, burst
        Requests a second over all methods, before a function is invoked at all.
    """

    name: str
    nat_zones: int
    readers: int
    min_acu: float
    max_acu: float
    backup_days: int
    log_days: int
    deletion_protection: bool
    interface_endpoints: bool
    rate: int
    burst: int


STAGES = {
    "dev": Stage(
        "dev", nat_zones=1, readers=0, min_acu=0.5, max_acu=2, backup_days=1, log_days=7, deletion_protection=False,
        interface_endpoints=False, rate=50, burst=100,
    ),
    "prod": Stage(
        "prod", nat_zones=2, readers=1, min_acu=0.5, max_acu=16, backup_days=14, log_days=30, deletion_protection=True,
        interface_endpoints=True, rate=500, burst=1000,
    ),
}  # fmt: skip
