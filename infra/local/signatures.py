"""Whether a request carries a Signature Version 4 of this stack's credentials.

Every user of the machine, and any page in a browser, can send requests to loopback; what runs without credentials must
not be able to invoke functions here, as it is not on AWS.
"""

from __future__ import annotations

import hmac
import re
from datetime import UTC, datetime, timedelta

from infra.local.wire import Request

# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/,]+)/(?P<date>\d{8})/(?P<region>[^/,]+)/(?P<service>[^/,]+)/aws4_request,"
    r" *SignedHeaders=(?P<headers>[a-z0-9;-]+), *Signature=(?P<signature>[0-9a-f]{64})"
)
MAX_SKEW = timedelta(minutes=15)


def is_signed(request: Request, url: str, credentials: tuple[str, str]) -> bool:
    """Tell whether `request`, sent to the server at `url`, is signed with `credentials` (access key, secret) now."""
    found = _AUTHORIZATION.fullmatch(request.header("authorization") or "")
    moment = _time(request.header("x-amz-date"))
    if found is None or moment is None or abs(datetime.now(UTC) - moment) > MAX_SKEW:
        return False
    if found["key"] != credentials[0] or not {"host", "x-amz-date"} <= set(found["headers"].split(";")):
        return False
    return hmac.compare_digest(_signature(request, url, credentials, found), found["signature"])


def _time(text: str | None) -> datetime | None:
    try:
        return datetime.strptime(text or "", "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def _signature(request: Request, url: str, credentials: tuple[str, str], claimed: re.Match[str]) -> str:
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    headers = {name: request.header(name) or "" for name in claimed["headers"].split(";")}
    # What the header says of the body is not believed.
    headers.pop("x-amz-content-sha256", None)
    signer = SigV4Auth(Credentials(*credentials), claimed["service"], claimed["region"])
    signed = AWSRequest(request.method, url + request.target, headers, request.body)
    signed.context["timestamp"] = headers["x-amz-date"]
    text = signer.string_to_sign(signed, signer.canonical_request(signed))
    return str(signer.signature(text, signed))
