from __future__ import annotations

import pytest

from chalicelib.core.errors import Forbidden, Invalid
from chalicelib.core.outbound.client import HttpOut
from tests.internet import OK, A, B, Internet, Server, client, redirect
from tests.ssrf_vectors import NAMES

# -- what is never connected to --------------------------------------------------------------------------------


@pytest.mark.parametrize("addresses", [answer for answer in NAMES.values() if len(answer) > 1])
def test_a_name_with_one_bad_address_is_refused_without_saying_which(
    addresses: tuple[str, ...], internet: Internet
) -> None:
    internet.serve("mixed.example", 80, OK)
    internet.names["mixed.example"] = [addresses]
    with pytest.raises(Forbidden) as caught:
        client(internet).request("GET", "http://mixed.example/", headers={})
    assert internet.dialled == []
    assert not any(address in str(vars(caught.value)) for address in addresses)


def test_a_rebinding_name_is_connected_at_the_address_that_was_checked(internet: Internet) -> None:
    good = internet.serve("rebind.example", 80, OK)
    bad = internet.serve("inside.example", 80, OK, at="127.0.0.1")
    internet.names["rebind.example"] = [(A,), ("127.0.0.1",)]
    out = client(internet)
    assert out.request("GET", "http://rebind.example/", headers={}).body == b"ok"
    assert internet.resolved == ["rebind.example"]
    assert internet.dialled == [(A, 80)]
    with pytest.raises(Forbidden):
        out.request("GET", "http://rebind.example/", headers={})
    assert (good.connections, bad.connections) == (1, 0)


def test_a_name_that_rebinds_between_redirects_is_checked_again(internet: Internet) -> None:
    internet.serve("rebind.example", 80, redirect(302, "/next"))
    internet.names["rebind.example"] = [(A,), ("169.254.169.254",)]
    with pytest.raises(Forbidden):
        client(internet).request("GET", "http://rebind.example/", headers={})
    assert internet.dialled == [(A, 80)]


def test_the_proxy_of_the_environment_is_not_asked(
    internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = internet.serve("proxy.example", 3128, OK)
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    internet.serve("api.example", 80, OK, at=B)
    client(internet).request("GET", "http://api.example/", headers={})
    assert proxy.connections == 0


# -- private endpoints and grants ------------------------------------------------------------------------------


def test_a_private_endpoint_is_reached_with_the_real_resolver_and_no_other_port() -> None:
    server, other = Server(OK), Server(OK)
    try:
        out = HttpOut.from_environment(
            {"HOTPLUG_PRIVATE_ENDPOINTS": f" 127.0.0.1:{server.port} , localhost:1 "}
        )
        assert out.request("GET", f"http://127.0.0.1:{server.port}/x", headers={}).body == b"ok"
        for url in (
            f"http://127.0.0.1:{other.port}/",
            f"http://localhost:{server.port}/",
            "http://127.0.0.1/",
        ):
            with pytest.raises(Forbidden):
                out.request("GET", url, headers={})
        assert (server.connections, other.connections) == (1, 0)
    finally:
        server.close()
        other.close()


def test_a_private_name_may_not_lead_to_the_metadata(internet: Internet) -> None:
    internet.names["demo.internal"] = [("10.0.0.7", "169.254.169.254")]
    with pytest.raises(Forbidden):
        client(internet, private_endpoints=["demo.internal:80"]).request(
            "GET", "http://demo.internal/", headers={}
        )
    assert internet.dialled == []


@pytest.mark.parametrize(
    "text", ["localhost", "localhost:80,", ",", "127.1:80", "*:80", "169.254.169.254:80"]
)
def test_a_bad_list_of_private_endpoints_fails_closed(text: str) -> None:
    with pytest.raises(ValueError, match="private endpoints"):
        HttpOut.from_environment({"HOTPLUG_PRIVATE_ENDPOINTS": text})


def test_the_ranges_of_the_vpc_come_from_the_environment() -> None:
    out = HttpOut.from_environment({"HOTPLUG_VPC_RANGES": "52.94.0.0/16"})
    with pytest.raises(Forbidden):
        out.request("GET", "http://52.94.1.1/", headers={})
    with pytest.raises(ValueError, match="VPC ranges"):
        HttpOut.from_environment({"HOTPLUG_VPC_RANGES": "52.94.0.1/16"})


@pytest.mark.parametrize("granted", [["API.example"], ["api.example:80"], ["x.example", "api.example"], None])
def test_a_granted_host_is_reached(granted: list[str] | None, internet: Internet) -> None:
    internet.serve("api.example", 80, OK)
    assert (
        client(internet).request("GET", "http://api.EXAMPLE/", headers={}, allowed_hosts=granted).status
        == 200
    )


@pytest.mark.parametrize(
    "granted", [[], ["example"], ["sub.api.example"], ["api.example:443"], ["api.example:8080"]]
)
def test_a_host_that_was_not_granted_is_not_even_resolved(granted: list[str], internet: Internet) -> None:
    internet.serve("api.example", 80, OK)
    with pytest.raises(Forbidden) as caught:
        client(internet).request("GET", "http://api.example/", headers={}, allowed_hosts=granted)
    assert caught.value.code == "http.host_not_granted"
    assert internet.resolved == []


def test_a_grant_without_a_port_does_not_open_other_ports(internet: Internet) -> None:
    internet.serve("api.example", 8080, OK)
    with pytest.raises(Forbidden):
        client(internet).request("GET", "http://api.example:8080/", headers={}, allowed_hosts=["api.example"])


def test_a_grant_opens_no_private_address(internet: Internet) -> None:
    internet.serve("inside.example", 80, OK, at="10.0.0.1")
    with pytest.raises(Forbidden) as caught:
        client(internet).request(
            "GET", "http://inside.example/", headers={}, allowed_hosts=["inside.example"]
        )
    assert caught.value.code == "http.forbidden_address"


def test_every_malformed_grant_is_reported(internet: Internet) -> None:
    with pytest.raises(Invalid) as caught:
        client(internet).request(
            "GET", "http://a.example/", headers={}, allowed_hosts=["*.a", "a.example", "127.1"]
        )
    assert [violation.pointer for violation in caught.value.errors] == ["/allowedHosts/0", "/allowedHosts/2"]
