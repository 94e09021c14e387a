from __future__ import annotations

from pathlib import Path

import pytest

from infra.functions import Function, FunctionTable, MethodNotRouted, Route, RouteNotFound, function_table

PROBE = Path(__file__).resolve().parents[2] / "integration" / "local_stack_app"
API = Function("api", "app.app", "api", 10, 256)


def table(*routes: str) -> FunctionTable:
    pairs = [route.split(" ") for route in routes]
    return FunctionTable([API], [Route(method, path, API) for method, path in pairs], [])


@pytest.mark.parametrize(
    ("path", "resource", "parameters"),
    [
        ("/", "/", {}),
        ("/plugins", "/plugins", {}),
        ("/plugins/", "/plugins", {}),
        ("/plugins/a", "/plugins/{id}", {"id": "a"}),
        ("/plugins/a%2Fb%40c", "/plugins/{id}", {"id": "a%2Fb%40c"}),
        ("/plugins/..", "/plugins/{id}", {"id": ".."}),
        ("/plugins/special", "/plugins/special", {}),
        (
            "/plugins/special/versions/2",
            "/plugins/{id}/versions/{version}",
            {"id": "special", "version": "2"},
        ),
    ],
)
def test_a_fixed_segment_wins_and_parameters_stay_encoded(
    path: str, resource: str, parameters: dict[str, str]
) -> None:
    routes = table(
        "GET /",
        "GET /plugins",
        "GET /plugins/{id}",
        "GET /plugins/special",
        "GET /plugins/{id}/versions/{version}",
    )
    assert routes.route("GET", path) == (API, resource, parameters)


@pytest.mark.parametrize(
    "path", ["/plugin", "/plugins/a/b", "/plugins//versions/1", "//plugins", "/plugins/a/versions"]
)
def test_an_unknown_path_has_no_route(path: str) -> None:
    with pytest.raises(RouteNotFound):
        table("GET /plugins", "GET /plugins/{id}", "GET /plugins/{id}/versions/{version}").route("GET", path)


def test_a_known_path_without_the_method_names_those_it_has() -> None:
    routes = table("GET /plugins/{id}", "DELETE /plugins/{id}", "POST /plugins")
    with pytest.raises(MethodNotRouted) as refused:
        routes.route("HEAD", "/plugins/a")
    assert refused.value.allowed == ("DELETE", "GET")


@pytest.mark.parametrize(
    ("routes", "message"),
    [
        (("GET /a/{x}", "GET /a/{y}/b"), "sibling routes"),
        (("GET /a/{x}", "GET /a/{x}"), "declared twice"),
        (("GET /a/{x+}",), "greedy"),
    ],
)
def test_what_api_gateway_would_refuse_is_refused(routes: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        table(*routes)


def test_one_function_serves_all_routes_by_default() -> None:
    read = function_table(per_endpoint=False, task_root=PROBE)

    assert {route.function.name for route in read.routes} == {"api"}
    assert {function.name for function in read.functions} == {
        "api", "register", "register_dead_letter", "tick", "runtime", "runtime_network", "migrate",
    }  # fmt: skip
    assert "multipart/form-data" in read.binary_types
    assert read.by_name["register"].queue == "probe-install"
    assert read.by_name["tick"].schedule == "rate(1 minute)"
    assert read.by_name["runtime_network"].environment == {
        "HOTPLUG_ENDPOINT": "none",
        "HOTPLUG_RUNTIME_NETWORK": "1",
    }
    assert [function.name for function in read.functions if function.per_tenant] == [
        "runtime",
        "runtime_network",
    ]


def test_each_endpoint_is_a_function_as_deployed() -> None:
    read = function_table(per_endpoint=True, task_root=PROBE)

    function, resource, _ = read.route("GET", "/api/v1/items/special")
    assert (function.name, function.environment) == ("probe-special", {"HOTPLUG_ENDPOINT": "probe.special"})
    assert resource == "/api/v1/items/special"
    assert len({route.function.name for route in read.routes}) == len(read.routes)
    assert "api" not in read.by_name


def application(folder: Path, app: str, endpoints: str = "ENDPOINTS = []") -> Path:
    (folder / "chalicelib" / "api").mkdir(parents=True)
    (folder / "chalicelib" / "api" / "endpoint.py").write_text(endpoints)
    (folder / "app.py").write_text(f"from chalice.app import Chalice, Rate\napp = Chalice('x')\n{app}")
    return folder


def test_a_run_is_a_durable_function_and_nothing_else_is(tmp_path: Path) -> None:
    functions = "".join(
        f"@app.lambda_function(name='{name}')\ndef {name}(event, context): ...\n" for name in ("run", "other")
    )
    read = function_table(per_endpoint=False, task_root=application(tmp_path, functions))
    run, other = read.by_name["run"], read.by_name["other"]
    assert (run.durable, run.timeout_s, run.memory_mb) == (True, 300, 1769)
    assert not other.durable


def test_a_route_without_a_declaration_is_refused(tmp_path: Path) -> None:
    folder = application(tmp_path, "@app.route('/hidden')\ndef hidden(): ...\n")
    with pytest.raises(ValueError, match=r"routes and ENDPOINTS differ: \[\('GET', '/hidden'\)\]"):
        function_table(per_endpoint=False, task_root=folder)


def test_an_application_that_does_not_import_says_why(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        function_table(per_endpoint=False, task_root=application(tmp_path, "1 / 0"))


def test_an_event_source_that_nothing_serves_is_refused(tmp_path: Path) -> None:
    folder = application(tmp_path, "@app.on_sns_message(topic='t')\ndef on_topic(event): ...\n")
    with pytest.raises(ValueError, match="SNSEventConfig has no counterpart"):
        function_table(per_endpoint=False, task_root=folder)
