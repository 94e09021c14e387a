"""The certificates that the functions trust are the ones that were compared with AWS's, and no other.

What was compared with what: docs/decisions/0027-no-secret-in-an-environment.md.
"""

from __future__ import annotations

import hashlib
import re
import ssl
from pathlib import Path
from typing import Any

import pytest
from botocore.session import Session

from infra.aws.package import CERTIFICATES

BUNDLES = ("amazon-roots.pem", "rds.pem")
# `SHA-256  bundle  name` of each, a line.
PINNED = Path(__file__).with_name("certificates.txt").read_text().splitlines()
DECISION = Path(__file__).resolve().parents[3] / "docs/decisions/0027-no-secret-in-an-environment.md"
TITLED = re.compile(r"^# (.+)\n(-----BEGIN CERTIFICATE-----\n[^-]+-----END CERTIFICATE-----)$", re.MULTILINE)


def titled(bundle: str) -> list[tuple[str, str]]:
    """Return title and SHA-256 of each certificate, in the order of the file."""
    found = TITLED.findall((CERTIFICATES / bundle).read_text())
    return [(title, hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()) for title, pem in found]


def test_each_certificate_is_one_that_was_compared() -> None:
    found = [f"{digest}  {bundle}  {title}" for bundle in BUNDLES for title, digest in titled(bundle)]
    assert found == PINNED
    assert {path.name for path in CERTIFICATES.iterdir()} == set(BUNDLES)


@pytest.mark.parametrize("bundle", BUNDLES)
def test_python_trusts_what_is_listed_and_nothing_beside_it(bundle: str) -> None:
    """Text that the list does not see, an intermediate or a wrong title would show here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=CERTIFICATES / bundle)
    names = {}
    read: list[Any] = context.get_ca_certs()
    for binary, certificate in zip(context.get_ca_certs(binary_form=True), read, strict=True):
        assert certificate["subject"] == certificate["issuer"]
        subject = dict(pair for (pair,) in certificate["subject"])
        names[hashlib.sha256(binary).hexdigest()] = subject["commonName"]
    assert names == {digest: title for title, digest in titled(bundle)}
    assert context.cert_store_stats() == {"x509": len(names), "crl": 0, "x509_ca": len(names)}


def test_regions_whose_root_is_missing_are_named_where_one_decides() -> None:
    """A cluster in one of them could not be migrated: its certificate would not be trusted."""
    kinds: dict[str, set[str]] = {}
    for title, _ in titled("rds.pem"):
        name = re.fullmatch(r"Amazon RDS ([a-z0-9-]+) Root CA (\w+) G1", title)
        assert name is not None
        kinds.setdefault(name[1], set()).add(name[2])
    assert all(found == {"RSA2048", "RSA4096", "ECC384"} for found in kinds.values())
    missing = set(Session().get_available_regions("rds")) - set(kinds)
    written = re.search(r"Not in the bundle: ([^.]+)\.", DECISION.read_text())
    assert written is not None
    assert set(re.findall(r"`([a-z0-9-]+)`", written[1])) == missing
