"""URLs that must never cause a connection, each with the code of its refusal."""

from __future__ import annotations

INVALID, FORBIDDEN = "http.invalid_url", "http.forbidden_address"

# What the names below resolve to.
NAMES: dict[str, tuple[str, ...]] = {
    "localhost": ("127.0.0.1",),
    "localhost6": ("::1",),
    "loopback.attacker.example": ("127.0.0.1",),
    "metadata.attacker.example": ("169.254.169.254",),
    "metadata.google.internal": ("169.254.169.254",),
    "good-then-bad.attacker.example": ("93.184.215.14", "10.0.0.1"),
    "bad-then-good.attacker.example": ("10.0.0.1", "93.184.215.14"),
    "bad-only-in-ipv6.attacker.example": ("93.184.215.14", "fd00:ec2::254"),
    "mapped.attacker.example": ("::ffff:169.254.169.254",),
    "scoped.attacker.example": ("2606:4700::1111%eth0",),
    "nonsense.attacker.example": ("not-an-address",),
    "127.0.0.1.nip.example": ("127.0.0.1",),
    "0x7f000001.example": ("127.0.0.1",),
    "ours.example": ("52.94.1.7",),  # public, but in the ranges of the VPC
    "xn--lcalhost-t1a.example": ("127.0.0.1",),
}
VPC_RANGES = ("52.94.0.0/16", "2600:1f00:1::/48")

_FORBIDDEN_ADDRESSES = (
    *("127.0.0.1", "127.1.2.3", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255"),
    *("172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.1.1", "100.64.0.1", "100.127.255.255"),
    "100.100.100.200",  # Alibaba's metadata
    "169.254.169.254",  # metadata
    "169.254.170.2",  # ECS credentials
    "169.254.170.23",  # EKS pod identity
    "169.254.100.1",  # the Lambda runtime API
    "169.254.169.253",  # the VPC's resolver
    "168.63.129.16",  # Azure's wire server
    "192.0.0.192",  # Oracle's metadata
    *("192.0.0.1", "192.0.0.9", "192.0.2.1", "192.88.99.1", "192.31.196.1", "192.52.193.1", "192.175.48.1"),
    *("198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1"),
    *("224.0.0.1", "233.252.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    "52.94.3.4",  # the VPC's own range
    *("[::1]", "[::]", "[::2]", "[0:0:0:0:0:0:0:1]", "[0000:0000:0000:0000:0000:0000:0000:0001]"),
    *("[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]"),
    *("[::ffff:8.8.8.8]", "[::ffff:0:127.0.0.1]"),
    *("[::127.0.0.1]", "[::a9fe:a9fe]", "[::8.8.8.8]"),  # IPv4-compatible
    *("[64:ff9b::169.254.169.254]", "[64:ff9b::8.8.8.8]", "[64:ff9b:1::a9fe:a9fe]"),  # NAT64
    *("[2002:7f00:1::1]", "[2002:a9fe:a9fe::]", "[2002:808:808::1]"),  # 6to4
    *("[2001::1]", "[2001:0:7f00:1::5601:5601]"),  # Teredo
    *("[2001:2::1]", "[2001:10::1]", "[2001:20::1]", "[2001:3::1]", "[2001:4:112::1]", "[2001:1::1]"),
    *("[2001:db8::1]", "[3fff::1]", "[3ffe::1]", "[100::1]", "[5f00::1]", "[4000::1]", "[2620:4f:8000::1]"),
    *("[fc00::1]", "[fd00:ec2::254]", "[fd20:ce::254]", "[fd00:c1::a9fe:a9fe]"),
    *("[fe80::1]", "[febf::1]", "[fec0::1]", "[ff02::1]", "[ff0e::1]"),
    *("[2606:4700::5efe:10.0.0.1]", "[2606:4700::200:5efe:7f00:1]"),  # ISATAP
    "[2600:1f00:1::5]",  # the VPC's own range
)
_INVALID_HOSTS = (
    *("127.1", "127.0.1", "127", "0", "2130706433", "3232235521", "0x7f000001", "0x7f.0.0.1", "0x7f.1"),
    *("0X7F.0.0.1", "0177.0.0.1", "017700000001", "0177.0.0.01", "127.0.0.01", "127.0.0.001", "127.0.0.0x1"),
    *("00000127.0.0.1", "127.0.0.1.", "127.0.0.1..", "256.256.256.256", "127.0.0.256", "1.2.3.4.5", "0x"),
    *("4294967297", "1.2.3.08", "8.8.8.8.", "8.8.2056", "08.8.8.8", "example.0x7f", "example.com.1"),
    *("localhost.", "example.com.", "..", ".", ".localhost", "a..b", "-a.example", "a-.example"),
    *("１２７.0.0.1", "①②⑦.0.0.1", "١٢٧.0.0.1", "127。0。0。1", "127．0．0．1", "ⓛocalhost", "localhoſt"),
    *("loc\u00adalhost", "loc\u200balhost", "bücher.example", "\uff0f", "localhost\uff1a80", "ʟocalhost"),
    *("%31%32%37.0.0.1", "127.0.0.1%00.example", "localhost%2f", "127%2e0%2e0%2e1", "%6c%6f%63alhost"),
    *("[::1%25lo]", "[fe80::1%25eth0]", "[fe80::1%eth0]", "[::1%lo]", "[::1", "::1]", "::1", "[127.0.0.1]"),
    *("[]", "[:::1]", "[1:2:3]", "[::1].example", "[::ffff:127.1]", "[v1.fe80::1]", "[::1]x", "a[::1]"),
    *("user@localhost", "user:secret@localhost", "example.com@127.0.0.1", "@127.0.0.1"),
    "example.com:80@127.0.0.1",
    *("example.com\\@127.0.0.1", "127.0.0.1\\.example.com", "127.0.0.1 .example.com", " 127.0.0.1"),
    "127.0.0.1 ",
    *("127.0.0.1\t", "127.0\n.0.1", "local\rhost", "127.0.0.1\x00", "local\x7fhost", "a b", "a\u00a0b"),
    *("a,b", "a;b"),
    *(
        "a$b",
        "a!b",
        "a*b",
        "*",
        "a'b",
        "(a)",
        "a^b",
        "{a}",
        "a|b",
        "a`b",
        "a<b",
        'a"b',
        "a~b",
        "a&b=c",
        "a+b",
    ),
    *("a" * 64 + ".example", "a." * 127 + "aa"),
    *("example.com:0", "example.com:", "example.com:080", "example.com:65536", "example.com:99999999999"),
    *("example.com:-1", "example.com:+80", "example.com:８０"),
    *("example.com:80:80", "example.com:http", "[::1]:"),
)
_INVALID_URLS = (
    *("", " ", "/", "//127.0.0.1/", "127.0.0.1", "localhost:80", "http", "http:", "http:/", "http://"),
    "http:///",
    *("http:///127.0.0.1/", "http:127.0.0.1/", "http:/127.0.0.1/", "http:\\\\127.0.0.1\\"),
    "http:/\\127.0.0.1/",
    *("http://?a", "http://#a", "http://:80/", "http://@/", " http://127.0.0.1/", "http://127.0.0.1/ "),
    *(
        "\thttp://127.0.0.1/",
        "ht\ntp://127.0.0.1/",
        "http\x00://127.0.0.1/",
        "http://127.0.0.1\\/",
        "http ://a/",
    ),
    *(
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "gopher://127.0.0.1:6379/_INFO",
        "dict://127.0.0.1:11211/stats",
    ),
    *("ldap://127.0.0.1/", "unix:///run/docker.sock", "http+unix://%2frun%2fdocker.sock/"),
    "jar:http://127.0.0.1!/",
    *(
        "data:text/plain,hello",
        "javascript:alert(1)",
        "ws://127.0.0.1/",
        "wss://127.0.0.1/",
        "h2c://127.0.0.1/",
    ),
    *("url:http://127.0.0.1/", "https:http://127.0.0.1/", "http://http://127.0.0.1/", "ｈttp://127.0.0.1/"),
    *("http://example.com/#@127.0.0.1/", "http://example.com#@127.0.0.1/", "http://127.0.0.1/#a"),
    *("http://example.com?@127.0.0.1/\\", "http://example.com/\\127.0.0.1", "http://example.com/a b"),
    *(
        "http://example.com/\r\nHost: 127.0.0.1",
        "http://example.com/ HTTP/1.1\r\nX: y",
        "http://example.com/\x00",
    ),
    *("http://example.com/\x7f", "http://example.com/ü", "http://example.com/\u2028", "http://example.com/%"),
    *(
        "http://example.com/%0",
        "http://example.com/%zz",
        "http://example.com/%u0031",
        "http://example.com/\ud800",
    ),
    "http://example.com/" + "a" * 8192,
)

VECTORS: tuple[tuple[str, str], ...] = (
    *((f"http://{address}/", FORBIDDEN) for address in _FORBIDDEN_ADDRESSES),
    *((f"http://{name}/latest/meta-data/", FORBIDDEN) for name in NAMES),
    *((f"http://{host}/", INVALID) for host in _INVALID_HOSTS),
    *((url, INVALID) for url in _INVALID_URLS),
    ("https://127.0.0.1/", FORBIDDEN),
    ("https://LOCALHOST:8443/x?y=http://example.com/", FORBIDDEN),
    ("HTTP://127.0.0.1:9001/2018-06-01/runtime/invocation/next", FORBIDDEN),
    ("http://[::FFFF:7F00:1]:80/", FORBIDDEN),
    ("http://169.254.169.254:80?latest/meta-data", FORBIDDEN),
    ("http://127.0.0.1:65535", FORBIDDEN),
)
