from __future__ import annotations

import pytest

from chalicelib.core.errors import Invalid
from chalicelib.core.outbound import addresses
from chalicelib.core.outbound.addresses import Endpoint, Target


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://example.com", Target("http", "example.com", 80, "/")),
        ("HTTPS://EXAMPLE.com/A?b=C", Target("https", "example.com", 443, "/A?b=C")),
        ("https://example.com:443/", Target("https", "example.com", 443, "/")),
        ("https://example.com:80/", Target("https", "example.com", 80, "/")),
        ("http://example.com?q", Target("http", "example.com", 80, "/?q")),
        ("http://my_service:8080/x", Target("http", "my_service", 8080, "/x")),
        ("http://xn--bcher-kva.example/%C3%BC", Target("http", "xn--bcher-kva.example", 80, "/%C3%BC")),
        ("http://93.184.215.14/", Target("http", "93.184.215.14", 80, "/")),
        ("http://[2606:4700:0:0::1111]/", Target("http", "2606:4700::1111", 80, "/")),
        (
            "http://a.example/f?filter[x]=1&u=http://b/@c",
            Target("http", "a.example", 80, "/f?filter[x]=1&u=http://b/@c"),
        ),
        ("http://0x7f.example/", Target("http", "0x7f.example", 80, "/")),
    ],
)
def test_a_plain_url_has_one_reading(url: str, target: Target) -> None:
    assert addresses.parse_url(url) == target


@pytest.mark.parametrize(
    ("url", "authority", "address"),
    [
        ("http://example.com:80/", "example.com", None),
        ("http://example.com:443/", "example.com:443", None),
        ("https://example.com:443/", "example.com", None),
        ("http://93.184.215.14:81/", "93.184.215.14:81", "93.184.215.14"),
        ("http://[2606:4700::1111]/", "[2606:4700::1111]", "2606:4700::1111"),
        ("http://[2606:4700::1111]:81/", "[2606:4700::1111]:81", "2606:4700::1111"),
    ],
)
def test_the_authority_is_what_the_host_header_says(url: str, authority: str, address: str | None) -> None:
    target = addresses.parse_url(url)
    assert (target.authority, target.address) == (authority, address)
    assert addresses.parse_url(target.url) == target


def test_a_refused_url_names_the_place_and_the_rule_but_not_the_text() -> None:
    with pytest.raises(Invalid) as caught:
        addresses.parse_url("http://user:hunter2@example.com/")
    (violation,) = caught.value.errors
    assert (caught.value.code, violation.pointer, violation.rule) == (
        "http.invalid_url",
        "/url",
        "http.invalid_url",
    )
    assert "hunter2" not in caught.value.detail + violation.message


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/b?c", "https://a.example/b?c"),
        ("c", "https://a.example/x/c"),
        ("?q", "https://a.example/x/y?q"),
        ("../../z", "https://a.example/z"),
        ("//b.example/p", "https://b.example/p"),
        ("http://b.example:81", "http://b.example:81/"),
        ("/b#fragment", "https://a.example/b"),
        ("", "https://a.example/x/y"),
    ],
)
def test_a_redirect_is_relative_to_where_it_came_from(location: str, url: str) -> None:
    assert addresses.parse_location(addresses.parse_url("https://a.example/x/y"), location).url == url


@pytest.mark.parametrize(
    "location",
    [
        "/\\evil.example",
        "\\\\evil.example",
        "http://[evil",
        "//u@evil.example/",
        "ftp://evil.example/",
        "/\tb",
        " /b",
        "http://127.1/",
        "/ü",
        "javascript:1",
        "http://[::1%25lo]/",
        "\n//evil.example",
        "https:///",
        "https:///evil.example",
        "https:evil.example",
        "//",
        "///evil.example",
        "//?a",
    ],
)
def test_a_redirect_that_reads_in_two_ways_is_refused(location: str) -> None:
    with pytest.raises(Invalid) as caught:
        addresses.parse_location(addresses.parse_url("https://a.example/x"), location)
    assert caught.value.code == "http.invalid_url"


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "93.184.215.14",
        "1.1.1.1",
        "100.63.255.255",
        "100.128.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "169.253.255.255",
        "223.255.255.255",
        "198.17.255.255",
        "2606:4700::1111",
        "2a00:1450:4001::200e",
        "2001:200::1",
    ],
)
def test_public_addresses_are_public(address: str) -> None:
    assert addresses.is_public(address)
    assert not addresses.is_never_reachable(address)


def test_a_range_of_the_deployment_is_not_public() -> None:
    closed = addresses.parse_ranges(["52.94.0.0/16", "2606:4700::/32"])
    assert not addresses.is_public("52.94.255.255", closed)
    assert not addresses.is_public("2606:4700::1111", closed)
    assert addresses.is_public("52.95.0.0", closed)


@pytest.mark.parametrize("text", ["", "localhost", "127.1", "2606:4700::1%eth0", "8.8.8.8/32"])
def test_what_is_no_address_is_neither_public_nor_reachable(text: str) -> None:
    assert not addresses.is_public(text)
    assert addresses.is_never_reachable(text)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.170.2",
        "169.254.100.1",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "0.0.0.0",
        "224.0.0.1",
        "::",
        "fd00:ec2::254",
        "fd00:42::42",
        "fe80::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "2002:7f00:1::1",
        "2001::1",
        "::ffff:0:127.0.0.1",
        "fe80::1%eth0",
    ],
)
def test_no_list_opens_the_metadata_or_an_address_in_disguise(address: str) -> None:
    assert addresses.is_never_reachable(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "::1", "fd12::1"])
def test_a_list_may_open_private_addresses(address: str) -> None:
    assert not addresses.is_never_reachable(address)


def test_private_endpoints_are_exact() -> None:
    assert addresses.parse_private_endpoints(["LocalHost:8080", "[::1]:81", "10.0.0.1:80"]) == {
        Endpoint("localhost", 8080),
        Endpoint("::1", 81),
        Endpoint("10.0.0.1", 80),
    }


@pytest.mark.parametrize(
    "entry",
    [
        "localhost",
        "localhost:",
        ":80",
        "",
        "http://localhost:80",
        "localhost:80/x",
        "*:80",
        "10.0.0.0/8:80",
        "127.1:80",
        "localhost:http",
        "localhost:99999",
        "::1:80",
        "u@localhost:80",
        "169.254.169.254:80",
        "[fd00:ec2::254]:80",
    ],
)
def test_one_bad_private_endpoint_spoils_the_list(entry: str) -> None:
    with pytest.raises(ValueError, match="private endpoints: "):
        addresses.parse_private_endpoints(["localhost:8080", entry])


def test_every_bad_private_endpoint_is_named() -> None:
    with pytest.raises(ValueError, match=r"'a': the port is missing; '\*:80': not a host"):
        addresses.parse_private_endpoints(["a", "b:80", "*:80"])


def test_every_bad_range_is_named() -> None:
    with pytest.raises(ValueError, match=r"'10\.0\.0\.1/8', 'x'$"):
        addresses.parse_ranges(["10.0.0.1/8", "10.0.0.0/8", "x"])


def test_an_endpoint_without_a_port_means_the_default_ports() -> None:
    anywhere, exact = addresses.parse_endpoint("a.example"), addresses.parse_endpoint("A.example:8080")
    assert [anywhere.matches("a.example", port) for port in (80, 443, 8080)] == [True, True, False]
    assert [exact.matches("a.example", port) for port in (80, 443, 8080)] == [False, False, True]
    assert not anywhere.matches("sub.a.example", 80)
