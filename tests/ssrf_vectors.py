"""URLs that must never cause a connection, each with the code of its refusal.

For every entry point that takes a URL from a caller: the client itself, a tool's `servers`, a token URL, an MCP
server, `context.http`. `tests/ssrf_trap.py` has the client whose connections would be seen, and resolves NAMES.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

INVALID, FORBIDDEN = "http.invalid_url", "http.forbidden_address"

# What the names below resolve to.
NAMES: dict[str, tuple[str, ...]] = {
    "localhost": ("127.0.0.1",),
    "localhost6": ("::1",),
    "loopback.attacker.example": ("127.0.0.1",),
    "runtime.attacker.example": ("169.254.100.1",),
    "metadata.attacker.example": ("169.254.169.254",),
    "metadata.google.internal": ("169.254.169.254",),
    "metadata.tencentyun.com": ("169.254.0.23",),
    "rancher-metadata": ("169.254.169.250",),
    "instance-data": ("169.254.169.254",),
    "kubernetes.default.svc": ("10.96.0.1",),
    "host.docker.internal": ("192.168.65.254",),
    "good-then-bad.attacker.example": ("93.184.215.14", "10.0.0.1"),
    "bad-then-good.attacker.example": ("10.0.0.1", "93.184.215.14"),
    "bad-among-many.attacker.example": (*(f"93.184.216.{n}" for n in range(50)), "127.0.0.1"),
    "bad-only-in-ipv6.attacker.example": ("93.184.215.14", "fd00:ec2::254"),
    "mapped.attacker.example": ("::ffff:169.254.169.254",),
    "translated.attacker.example": ("64:ff9b::a9fe:a9fe",),
    "six-to-four.attacker.example": ("2002:7f00:1::",),
    "scoped.attacker.example": ("2606:4700::1111%eth0",),
    "nonsense.attacker.example": ("not-an-address",),
    "127.0.0.1.nip.example": ("127.0.0.1",),
    "0x7f000001.example": ("127.0.0.1",),
    "ours.example": ("52.94.1.7",),  # public, but in the ranges of the VPC
    "xn--lcalhost-t1a.example": ("127.0.0.1",),
}
VPC_RANGES = ("52.94.0.0/16", "2600:1f00:1::/48")


@dataclass(frozen=True)
class Vector:
    """One URL. `kind` says what it tries; `id` is unique and printable."""

    kind: str
    id: str
    url: str
    code: str


# -- read in one way, and refused for where they lead --------------------------------------------------------

_METADATA = (
    "http://169.254.169.254/latest/meta-data/iam/security-credentials/",  # AWS, Hetzner, Huawei, OpenStack, …
    "http://169.254.169.254/latest/api/token",
    "http://[fd00:ec2::254]/latest/meta-data/",  # AWS over IPv6
    "http://169.254.170.2/v2/credentials/",  # ECS
    "http://169.254.170.23/v1/credentials",  # EKS pod identity
    "http://[fd00:ec2::23]/v1/credentials",
    "http://169.254.169.254/computeMetadata/v1/",  # Google
    "http://[fd20:ce::254]/computeMetadata/v1/",
    "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01",  # Azure
    "http://168.63.129.16/machine/?comp=goalstate",  # Azure's wire server
    "http://169.254.169.254/opc/v2/instance/",  # Oracle
    "http://192.0.0.192/latest/meta-data/",
    "http://[fd00:c1::a9fe:a9fe]/opc/v2/instance/",
    "http://100.100.100.200/latest/meta-data/",  # Alibaba
    "http://169.254.169.254/metadata/v1.json",  # DigitalOcean
    "http://169.254.42.42/conf?format=json",  # Scaleway
    "http://[fd00:42::42]/conf",
    "http://169.254.0.23/latest/meta-data/",  # Tencent
    "http://169.254.169.250/latest/",  # Rancher
    "http://[fe80::a9fe:a9fe]/openstack",  # OpenStack over IPv6
)
_RUNTIME_API = (
    "http://127.0.0.1:9001/2018-06-01/runtime/invocation/next",
    "http://169.254.100.1:9001/2018-06-01/runtime/invocation/next",
    "http://169.254.79.129:2000/",  # the X-Ray daemon
    "http://169.254.169.253/",  # the VPC's resolver
)
_ADDRESSES: dict[str, tuple[str, ...]] = {
    "loopback": (
        "127.0.0.1", "127.1.2.3", "127.255.255.254", "[::1]", "[0:0:0:0:0:0:0:1]",
        "[0000:0000:0000:0000:0000:0000:0000:0001]",
    ),
    "unspecified": ("0.0.0.0", "0.1.2.3", "[::]", "[::2]"),
    "private": (
        "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.17.0.1", "172.31.255.255", "192.168.0.1",
        "192.168.1.1", "[fc00::1]", "[fd12:3456:789a::1]",
    ),
    "carrier": ("100.64.0.1", "100.127.255.255"),
    "link-local": ("169.254.1.1", "[fe80::1]", "[febf::1]", "[fec0::1]"),
    "special": (
        "192.0.0.1", "192.0.0.9", "192.0.2.1", "192.88.99.1", "192.31.196.1", "192.52.193.1",
        "192.175.48.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "240.0.0.1",
        "[2001:2::1]", "[2001:10::1]", "[2001:20::1]", "[2001:3::1]", "[2001:4:112::1]", "[2001:1::1]",
        "[2001:db8::1]", "[3fff::1]", "[3ffe::1]", "[100::1]", "[5f00::1]", "[4000::1]",
        "[2620:4f:8000::1]",
    ),
    "multicast": ("224.0.0.1", "233.252.0.1", "239.255.255.255", "255.255.255.255", "[ff02::1]", "[ff0e::1]"),
    "vpc": ("52.94.3.4", "[2600:1f00:1::5]"),
    "mapped": (
        "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]",
        "[::ffff:8.8.8.8]", "[::ffff:0:127.0.0.1]", "[0:0:0:0:0:ffff:127.0.0.1]", "[::FFFF:7F00:1]:80",
    ),
    "compatible": ("[::127.0.0.1]", "[::a9fe:a9fe]", "[::8.8.8.8]"),
    "nat64": (
        "[64:ff9b::169.254.169.254]", "[64:ff9b::7f00:1]", "[64:ff9b::8.8.8.8]", "[64:ff9b:1::a9fe:a9fe]",
    ),
    "6to4": ("[2002:7f00:1::1]", "[2002:a9fe:a9fe::]", "[2002:808:808::1]"),
    "teredo": ("[2001::1]", "[2001:0:7f00:1::5601:5601]"),
    "isatap": ("[2606:4700::5efe:10.0.0.1]", "[2606:4700::200:5efe:7f00:1]"),
}  # fmt: skip
_FORBIDDEN_URLS: dict[str, tuple[str, ...]] = {
    "metadata": _METADATA,
    "runtime-api": _RUNTIME_API,
    "case": ("HTTP://127.0.0.1/", "https://LOCALHOST:8443/x?y=http://example.com/", "hTTpS://LocalHost/"),
    "port": ("https://127.0.0.1/", "http://127.0.0.1:65535", "http://localhost:22/", "http://[::1]:6379/"),
    "query": ("http://169.254.169.254:80?latest/meta-data", "http://127.0.0.1?@example.com/"),
    "path": ("http://127.0.0.1/@example.com/", "http://127.0.0.1//example.com/", "http://127.0.0.1/../x"),
}

# -- readable in more than one way, or in none ---------------------------------------------------------------

_HOSTS: dict[str, tuple[str, ...]] = {
    "decimal": ("2130706433", "3232235521", "2852039166", "0", "127"),
    "octal": (
        "0177.0.0.1", "017700000001", "0177.0.0.01", "127.0.0.01", "127.0.0.001", "00000127.0.0.1",
        "0251.0376.0251.0376", "08.8.8.8", "1.2.3.08",
    ),
    "hex": (
        "0x7f000001", "0x7f.0.0.1", "0x7f.1", "0X7F.0.0.1", "127.0.0.0x1", "0xa9.0xfe.0xa9.0xfe", "0x",
        "example.0x7f",
    ),
    "mixed-bases": ("0x7f.0.0.01", "0177.0x0.1", "169.0xfe.43518"),
    "short": ("127.1", "127.0.1", "8.8.2056", "169.254.43518", "10.1"),
    "overflow": (
        "256.256.256.256", "127.0.0.256", "1.2.3.4.5", "4294967297", "383.510.425.510", "0x17f000001",
        "127.0.0.4294967297", "example.com.1",
    ),
    "zone-id": ("[::1%25lo]", "[fe80::1%25eth0]", "[fe80::1%eth0]", "[::1%lo]", "[::1%]"),
    "trailing-dot": ("127.0.0.1.", "127.0.0.1..", "localhost.", "example.com.", "8.8.8.8.", "..", "."),
    "empty-label": (".localhost", "a..b", "-a.example", "a-.example"),
    "userinfo": (
        "user@localhost", "user:secret@localhost", "example.com@127.0.0.1", "@127.0.0.1",
        "example.com:80@127.0.0.1", "127.0.0.1@example.com", "a@b@127.0.0.1", "%40127.0.0.1",
    ),
    "backslash": ("example.com\\@127.0.0.1", "127.0.0.1\\.example.com", "\\127.0.0.1", "127.0.0.1\\"),
    "unicode": (
        "１２７.0.0.1", "①②⑦.0.0.1", "١٢٧.0.0.1", "१२७.0.0.1", "127。0。0。1", "127．0．0．1", "127｡0｡0｡1",
        "ⓛocalhost", "localhoſt", "loc\u00adalhost", "loc\u200balhost", "bücher.example", "\uff0f",
        "ʟocalhost", "localhost\uff1a80", "example.com\u2044@127.0.0.1", "ｌｏｃａｌｈｏｓｔ", "²¹³.0.0.1",
    ),
    "escaped": (
        "%31%32%37.0.0.1", "127.0.0.1%00.example", "localhost%2f", "127%2e0%2e0%2e1", "%6c%6f%63alhost",
        "127.0.0.1%23.example.com", "example.com%5c@127.0.0.1",
    ),
    "brackets": (
        "[::1", "::1]", "::1", "[127.0.0.1]", "[]", "[:::1]", "[1:2:3]", "[::1].example", "[::1]x",
        "[::ffff:127.1]", "[v1.fe80::1]", "a[::1]", "[::ffff:0177.0.0.1]", "[::1]:",
    ),
    "space": ("127.0.0.1 .example.com", " 127.0.0.1", "127.0.0.1 ", "a b", "a\u00a0b"),
    "control": (
        "127.0.0.1\t", "127.0\n.0.1", "local\rhost", "127.0.0.1\x00", "local\x7fhost", "\x00localhost",
    ),
    "separator": (
        "a,b", "a;b", "a$b", "a!b", "a*b", "*", "a'b", "(a)", "a^b", "{a}", "a|b", "a`b", "a<b", 'a"b',
        "a~b", "a&b=c", "a+b", "example.com&@127.0.0.1", "{host}.example",
    ),
    "length": ("a" * 64 + ".example", "a." * 127 + "aa"),
    "bad-port": (
        "example.com:0", "example.com:", "example.com:080", "example.com:65536", "example.com:-1",
        "example.com:99999999999", "example.com:+80", "example.com:８０", "example.com:80:80",
        "example.com:http",
    ),
}  # fmt: skip
_URLS: dict[str, tuple[str, ...]] = {
    "fragment": (
        "http://example.com/#@127.0.0.1/", "http://example.com#@127.0.0.1/", "http://127.0.0.1/#a",
        "http://127.0.0.1#.example.com/", "http://example.com/?#@127.0.0.1/",
    ),
    "no-host": (
        "http://?a", "http://#a", "http://:80/", "http://@/", "http://", "http:///", "http:///127.0.0.1/",
    ),
    "no-scheme": (
        "", " ", "/", "//127.0.0.1/", "127.0.0.1", "localhost:80", "http", "http:", "http:/",
        "http:127.0.0.1/", "http:/127.0.0.1/",
    ),
    "slashes": (
        "http:\\\\127.0.0.1\\", "http:/\\127.0.0.1/", "\\\\127.0.0.1\\",
        "http://example.com/\\127.0.0.1", "http://example.com?@127.0.0.1/\\",
        "http://example.com\\.127.0.0.1/",
    ),
    "around": (
        " http://127.0.0.1/", "http://127.0.0.1/ ", "\thttp://127.0.0.1/", "ht\ntp://127.0.0.1/",
        "http\x00://127.0.0.1/", "http ://a/", "\ufeffhttp://127.0.0.1/",
    ),
    "scheme": (
        "file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1:6379/_INFO", "ldap://127.0.0.1/",
        "dict://127.0.0.1:11211/stats", "unix:///run/docker.sock", "http+unix://%2frun%2fdocker.sock/",
        "jar:http://127.0.0.1!/", "data:text/plain,hello", "javascript:alert(1)", "ws://127.0.0.1/",
        "wss://127.0.0.1/", "h2c://127.0.0.1/", "url:http://127.0.0.1/", "https:http://127.0.0.1/",
        "http://http://127.0.0.1/", "ｈttp://127.0.0.1/",
    ),
    "injection": (
        "http://example.com/\r\nHost: 127.0.0.1", "http://example.com/ HTTP/1.1\r\nX: y",
        "http://example.com/\x00", "http://example.com/\x7f", "http://example.com/a b",
        "http://example.com/ü", "http://example.com/\u2028", "http://example.com/\ud800",
        "http://example.com/\u010d\u010aHost:x",
    ),
    "escape": (
        "http://example.com/%", "http://example.com/%0", "http://example.com/%zz",
        "http://example.com/%u0031",
    ),
    "long": ("http://example.com/" + "a" * 8192,),
}  # fmt: skip


def _vectors() -> Iterator[Vector]:
    for kind, hosts in _ADDRESSES.items():
        yield from _numbered(kind, [f"http://{host}/" for host in hosts], FORBIDDEN)
    for kind, urls in _FORBIDDEN_URLS.items():
        yield from _numbered(kind, urls, FORBIDDEN)
    yield from _numbered("name", [f"http://{name}/latest/meta-data/" for name in NAMES], FORBIDDEN)
    for kind, hosts in _HOSTS.items():
        yield from _numbered(kind, [f"http://{host}/" for host in hosts], INVALID)
    for kind, urls in _URLS.items():
        yield from _numbered(kind, urls, INVALID)


def _numbered(kind: str, urls: tuple[str, ...] | list[str], code: str) -> Iterator[Vector]:
    for number, url in enumerate(urls):
        yield Vector(kind, f"{kind}-{number}-{ascii(url[:40])[1:-1]}", url, code)


VECTORS: tuple[Vector, ...] = tuple(_vectors())

# -- where a redirect may try to lead ------------------------------------------------------------------------

# References that only a redirect can hold, each from http://start.example/.
_REFERENCES: tuple[tuple[str, str], ...] = (
    ("//127.0.0.1/", FORBIDDEN),
    ("//metadata.attacker.example/latest", FORBIDDEN),
    ("//[::ffff:169.254.169.254]/", FORBIDDEN),
    ("//good-then-bad.attacker.example/", FORBIDDEN),
    ("//2130706433/", INVALID),
    ("//user@127.0.0.1/", INVALID),
    ("///127.0.0.1/", INVALID),
    ("/\\127.0.0.1/", INVALID),
    ("\\\\127.0.0.1\\", INVALID),
    ("http:127.0.0.1", INVALID),
    ("https:127.0.0.1", INVALID),
    ("http:///127.0.0.1/", INVALID),
    ("http:/127.0.0.1/", INVALID),
    ("file:///etc/passwd", INVALID),
    ("gopher://127.0.0.1:6379/_INFO", INVALID),
)
# The others are relative references when a redirect holds them, or no header's value.
_ALSO_FROM_REDIRECTS = (
    *_ADDRESSES, *_FORBIDDEN_URLS, "name",
    *(kind for kind in _HOSTS if kind not in ("control", "space")),
)  # fmt: skip
REDIRECTS: tuple[Vector, ...] = (
    *(vector for vector in VECTORS if vector.kind in _ALSO_FROM_REDIRECTS),
    *(Vector("reference", f"reference-{n}", url, code) for n, (url, code) in enumerate(_REFERENCES)),
)
