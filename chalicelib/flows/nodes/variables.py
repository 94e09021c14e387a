"""The node that sets and gets what a flow remembers of a person and a conversation."""

from __future__ import annotations

from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import HotplugError
from chalicelib.flows.dsl.values import default_of
from chalicelib.flows.engine.call import Call, Execute, Result
from chalicelib.flows.engine.errors import NODE_FAILED, node_error
from chalicelib.flows.variables import service


def variable_nodes(database: DatabaseService) -> dict[str, Execute]:
    """Return the work of the node type `node-variable`.

    `set` stores the inputs under their names, and gives them out again; `get` gives the declared outputs, each with its
    default where it was never set.
    """

    def execute(call: Call) -> Result:
        of = call.scope
        scope = service.Scope(of.caller.app_id, of.flow_id, of.uid, of.chat_id)
        try:
            if call.node.params["method"] == "set":
                database.run(lambda session: service.put(session, scope, call.inputs))
                return Result(dict(call.inputs))
            names = {output.name: output for output in call.node.outputs}
            with database.reads() as session:
                found = service.get(session, scope, names)
        except HotplugError as error:
            raise node_error(error, NODE_FAILED) from error
        return Result({name: found.get(name, default_of(one.schema)) for name, one in names.items()})

    return {"node-variable": execute}
