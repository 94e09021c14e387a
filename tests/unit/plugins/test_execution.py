"""The runtime's faults, as a caller of the API gets them. Runs on a database are in tests/integration."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from chalicelib.core import guards
from chalicelib.core.errors import HotplugError
from chalicelib.core.instances import Heartbeat
from chalicelib.events import execution as events
from chalicelib.plugins import execution, execution_log
from chalicelib.plugins.run_models import PluginExecution
from chalicelib.plugins.runtime import faults
from tests.conftest import create_schema
from tests.http import settings
from tests.plugin_rows import answer, caller, put_plugin, services


@pytest.fixture
def run(tmp_path: Path) -> Any:
    url = f"sqlite:///{tmp_path}/hotplug.db"
    with settings(HOTPLUG_DATABASE_URL=url):
        database = create_schema(url)
        plugin_id = put_plugin(database)

        def execute(reply: dict[str, Any]) -> execution_log.Execution:
            made = services(database, lambda event: reply)
            return execution.execute(made, Heartbeat(database), caller(), plugin_id, params={})

        execute.database = database  # type: ignore[attr-defined]
        yield execute
        database.close()


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (faults.timed_out(), 504),
        (faults.cpu_exhausted(), 504),
        (faults.out_of_memory(1), 502),
        (faults.result_too_large(), 502),
        (faults.plugin_error({"code": "E42", "message": "no"}), 502),
        (faults.PluginFault("refused", "plugin.sandbox_unavailable", "no filter"), 503),
    ],
)
def test_the_runtimes_own_faults(run: Any, fault: faults.PluginFault, status: int) -> None:
    with pytest.raises(HotplugError) as raised:
        run(answer(ok=False, error=fault.as_dict()))
    assert raised.value.status == status
    assert raised.value.extensions["logs"] == "said hello\n"


@pytest.mark.parametrize("kind", get_args(faults.Kind))
def test_every_kind_of_fault_has_a_status_and_an_outcome(run: Any, kind: Any) -> None:
    with pytest.raises(HotplugError) as raised:
        run(answer(ok=False, error=faults.PluginFault(kind, "plugin.timeout", "x").as_dict()))
    assert raised.value.status in (502, 503, 504)
    with run.database.reads() as session:
        [row] = session.query(PluginExecution).all()
    assert row.outcome in execution_log.OUTCOMES[1:]


def test_the_message_of_an_internal_fault_stays_inside(run: Any) -> None:
    with pytest.raises(HotplugError) as raised:
        run(answer(ok=False, error=faults.PluginFault("internal", "runtime.x", "/opt/secret/path").as_dict()))
    assert "/opt" not in str(raised.value.detail) + str(raised.value.extensions)


def test_a_run_inside_a_unit_of_work_is_refused(run: Any) -> None:
    made = services(run.database)
    with guards.unit(), pytest.raises(guards.NetworkInsideUnit):
        execution.execute(made, Heartbeat(run.database), caller(), "plugin_notifier_abc123", params={})


def test_the_runtime_function_answers_a_malformed_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOTPLUG_LOCAL_CACHE_DIR", str(tmp_path))
    reply = events.handle({})
    assert (reply["ok"], reply["error"]["kind"]) == (False, "internal")
