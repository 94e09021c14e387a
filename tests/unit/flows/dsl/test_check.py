from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from chalicelib.core.errors import Violation
from chalicelib.flows.dsl.check import Checked, check_flow
from chalicelib.flows.dsl.findings import RULES
from chalicelib.flows.dsl.limits import MAX_DATA_BYTES, MAX_REPORTED, MAX_SUBFLOWS
from chalicelib.flows.dsl.model import Literal, Ref, RetryConfig
from tests.flow_builders import (
    END,
    START,
    Data,
    around,
    case,
    chain,
    code,
    condition,
    declared,
    edge,
    end,
    flow,
    if_else,
    iteration,
    literal,
    loop,
    message,
    node,
    output,
    ref,
    start,
    text_joiner,
    with_body,
)

Found = set[tuple[str, str, str]]


def found(checked: Checked) -> Found:
    return {(one.rule, one.node, one.field) for one in checked.violations}


def drop_edge(data: Data, source: str) -> Data:
    return {**data, "edges": [one for one in data["edges"] if one["sourceNodeId"] != source]}


def items(name: str = "xs") -> Data:
    return literal(name, ["a"], "array", items=declared())


LLM = {"template": "{{q}}", "systemTemplate": "Be brief.", "model": "m", "maxTokens": 10}
INTENTS = [
    {"id": "intent-one-of::yes", "name": "yes", "intentType": 2},
    {"id": "intent-one-of::no", "name": "no", "intentType": 1},
]
OPTIONS = [
    {"id": "option-one-of::a", "name": "A", "type": 2, "content": "first"},
    {"id": "option-one-of::b", "name": "B", "type": 1, "content": "else"},
]
QUERY = ref("q", START, "query")


def with_retry(**retry: Any) -> Data:
    return around(code("code::1", output("result", "integer"), retry={"shouldRetry": True, **retry}))


def bad_flows() -> Iterator[tuple[str, Any, Found]]:
    joiner = text_joiner()
    yield "no start", flow([end()]), {("start.count", "", "nodes")}
    yield (
        "two starts",
        flow(
            [start(), start(node_id="node-start::2"), end()], [edge(START, END), edge("node-start::2", END)]
        ),
        {("start.count", "", "nodes")},
    )
    yield "no end", flow([start(), message()]), {("end.missing", "", "nodes")}
    yield (
        "an end that is not reached",
        flow([start(), message(), end()], [edge(START, "message::1")]),
        {("end.unreachable", END, "id"), ("graph.unreachable", END, "id")},
    )
    yield "an id without a type", around(node("nothing")), {("node.id", "nothing", "id")}
    yield (
        "an id with a line feed",
        around(node("message::1\n", {"template": ""})),
        {("node.id", "message::1\n", "id")},
    )
    long = "message::" + "a" * 250
    yield "a long id", around(node(long, {"template": ""})), {("node.id", long, "id")}
    yield (
        "an id that is a number",
        flow([start(), {"id": 7}, end()], [edge(START, END)]),
        {("node.id", "", "id")},
    )
    yield "an unknown type", around(node("teleport::1")), {("node.type", "teleport::1", "id")}
    yield (
        "one id twice",
        flow([start(), end(), end()], [edge(START, END)]),
        {("node.duplicate", END, "id")},
    )
    yield (
        "edges to and from nowhere",
        flow([start(), end()], [edge(START, END), edge(START, "message::9"), edge("message::8", END)]),
        {("edge.dangling", START, "targetNodeId"), ("edge.dangling", "message::8", "sourceNodeId")},
    )
    yield (
        "a handle of nobody's",
        flow(
            [start(), message(), end()],
            [edge(START, "message::1", "branch_one_of::1"), edge("message::1", END)],
        ),
        {("edge.handle", START, "sourceHandle")},
    )
    yield (
        "a branch without its id",
        around(if_else(case("1"), case("2", level=999)), handles=("",)),
        {("edge.handle", "if-else::1", "sourceHandle")},
    )
    yield (
        "a failure edge that can never run",
        around(code(), handles=("", "fail_one_of::1")),
        {("edge.handle", "code::1", "sourceHandle")},
    )
    yield (
        "a failure edge of a strategy without one",
        {**with_retry(errorStrategy=0), "edges": around(code(), handles=("", "fail_one_of"))["edges"]},
        {("edge.handle", "code::1", "sourceHandle")},
    )
    yield (
        "an edge out of an end",
        flow([start(), end(), message()]),
        {("edge.handle", END, "sourceHandle")},
    )
    yield (
        "a self loop",
        flow([start(), message(), end()], [*around(message())["edges"], edge("message::1", "message::1")]),
        {("graph.cycle", "message::1", "edges")},
    )
    yield (
        "a cycle of three, with a way out",
        flow(
            [start(), message("message::1"), message("message::2"), message("message::3"), end()],
            [
                edge(START, "message::1"),
                edge("message::1", "message::2"),
                edge("message::2", "message::3"),
                edge("message::3", "message::1"),
                edge("message::3", END),
            ],
        ),
        {("graph.cycle", "message::1", "edges")},
    )
    yield (
        "an island",
        flow([start(), end(), message()], [edge(START, END)]),
        {("graph.unreachable", "message::1", "id")},
    )
    yield (
        "a ref to nowhere",
        flow([start(), end(ref("a", "message::9", "x"))]),
        {("ref.node", END, "inputs.a")},
    )
    yield (
        "a ref to itself",
        around(text_joiner("text-joiner::1", "x", ref("a", "text-joiner::1", "output"))),
        {("ref.node", "text-joiner::1", "inputs.a")},
    )
    yield (
        "a ref to what comes after, and to what stands beside",
        flow(
            [start(), text_joiner("text-joiner::1", "x", ref("a", "text-joiner::3", "output")),
             text_joiner("text-joiner::2", "x", ref("a", "text-joiner::1", "output")),
             text_joiner("text-joiner::3"), end()],
            [edge(START, "text-joiner::1"), edge(START, "text-joiner::2"),
             edge("text-joiner::1", "text-joiner::3"), edge("text-joiner::2", "text-joiner::3"),
             edge("text-joiner::3", END)],
        ),
        {("ref.node", "text-joiner::1", "inputs.a"), ("ref.node", "text-joiner::2", "inputs.a")},
    )  # fmt: skip
    yield (
        "outputs that nobody declared",
        flow([start(output("o", "object", properties={"a": declared()})), end(
            ref("a", START, "nope"), ref("b", START, "o.nope"), ref("c", START, "o.a.b"), ref("d", START, "o..a"),
        )]),
        {("ref.output", END, f"inputs.{name}") for name in "abcd"},
    )  # fmt: skip
    yield (
        "the output of a message",
        flow([start(), message(), end(ref("a", "message::1", "output"))]),
        {("ref.output", END, "inputs.a")},
    )
    yield (
        "names that are no inputs, and braces around no path",
        flow([
            start(), message("message::1", "{{a}} {{b.c}} {{d[0]}} {{b}}", literal("a", "1")),
            message("message::2", "{{a b}}"), end(template="{{x}}"),
        ]),
        {
            ("template.name", "message::1", "nodeParam.template"),
            ("template.name", "message::2", "nodeParam.template"),
            ("template.name", END, "nodeParam.template"),
        },
    )  # fmt: skip
    yield (
        "unknown names in each template of a model",
        flow([start(), *(node(f"{kind}::1", {"template": "{{x}}", "systemTemplate": "{{y}}", "instruction": "{{z}}"},
                              outputs=[output("o")]) for kind in ("llm", "extractor-parameter")), end()]),
        {("template.name", "llm::1", f"nodeParam.{name}") for name in ("template", "systemTemplate")}
        | {("template.name", "extractor-parameter::1", f"nodeParam.{name}")
           for name in ("template", "systemTemplate", "instruction")},
    )  # fmt: skip
    yield (
        "an input too many",
        around(message("message::1", "x", *(literal(f"i{number}", "") for number in range(201)))),
        {("param.schema", "message::1", "inputs")},
    )
    yield (
        "literals of other types",
        flow([start(output("n", "integer", default="x")), end(
            literal("code", "__import__('os').getcwd()", "integer"),
            literal("python", "{'a': 1}", "object"),
            literal("half", 1.5, "integer"),
            literal("truth", "True", "boolean"),
            literal("word", "", "number"),
            literal("nested", [1, "2"], "array", items=declared("integer")),
            literal("fine", "[1, 2]", "array", items=declared("integer")),
        )]),
        {("literal.type", END, f"inputs.{name}") for name in ("code", "python", "half", "truth", "word", "nested")}
        | {("literal.type", START, "outputs.n")},
    )  # fmt: skip
    yield (
        "inputs and outputs without form",
        flow([start(), node("message::1", {"template": "{{c}}"}, inputs=[
            {"name": "a"}, {"name": "b", "schema": {"type": "date"}}, literal("c", "1"), literal("c", "2"),
            {"name": "e f", "schema": {"type": "string"}}, 7,
            {"name": "g", "schema": {"type": "string", "value": {"type": "ref", "content": {"nodeId": START}}}},
        ], outputs=[{"schema": {}}]), end()]),
        {
            ("param.schema", "message::1", field)
            for field in ("inputs.a", "inputs.b.schema.type", "inputs.c", "inputs.e f.name", "inputs[5]",
                          "inputs.g.schema.value.content", "outputs[0]", "outputs[0].schema")
        },
    )  # fmt: skip
    yield (
        "retries out of range",
        with_retry(maxRetries=6, errorStrategy=3, timeout=0, backoff=-1, customOutput=[]),
        {
            ("param.schema", "code::1", f"retryConfig.{name}")
            for name in ("maxRetries", "errorStrategy", "timeout", "backoff", "customOutput")
        },
    )
    yield (
        "conditions on inputs that are not there",
        around(
            if_else(
                case("1", condition("in-a", "eq"), condition("in-a", "empty"), condition("in-z", "null")),
                case("2", level=999), case("3", level=999), case("1"),
                inputs=[literal("a", "1")],
            ),
            handles=("branch_one_of::1", "intent_chain|branch_one_of::2"),
        ),
        {
            ("param.schema", "if-else::1", f"nodeParam.cases{place}")
            for place in ("[0].conditions[0].rightVarIndex", "[0].conditions[2].leftVarIndex", "[2]", "[3].id")
        },
    )  # fmt: skip
    yield (
        "parameters that are missing",
        flow([start(), node("text-joiner::1", {"mode": 1}), node("plugin::1", {"pluginId": "x"}),
              node("node-variable::1", {"method": "drop"}), node("question-answer::1", {
                  "question": "?", "answerType": "option", "optionAnswer": []}), end()]),
        {
            ("param.schema", "text-joiner::1", "nodeParam"),
            ("param.schema", "text-joiner::1", "outputs"),
            ("param.schema", "plugin::1", "nodeParam"),
            ("param.schema", "node-variable::1", "nodeParam.method"),
            ("param.schema", "question-answer::1", "nodeParam.optionAnswer"),
            ("edge.handle", "question-answer::1", "sourceHandle"),
        },
    )  # fmt: skip
    yield (
        "custom outputs that do not fit",
        with_retry(errorStrategy=1, customOutput={"result": "7", "other": 1}),
        {("output.custom", "code::1", f"retryConfig.customOutput.{name}") for name in ("result", "other")},
    )
    yield (
        "a required output without its custom value",
        around(
            code("code::1", output("result", required=True), retry={"shouldRetry": True, "errorStrategy": 1})
        ),
        {("output.custom", "code::1", "retryConfig.customOutput.result")},
    )
    owner, (begin, *_) = "iteration::1", iteration(items())[1]
    yield (
        "an edge out of a body",
        {
            **(data := with_body(iteration(items(), joiner))),
            "edges": [*data["edges"], edge(joiner["id"], END)],
        },
        {("edge.dangling", joiner["id"], "targetNodeId")},
    )
    yield (
        "an edge into a body",
        {**data, "edges": [*data["edges"], edge(START, begin["sourceNodeId"])]},
        {("edge.dangling", START, "targetNodeId")},
    )
    yield (
        "an edge into a body whose owner is not reached",
        {**data, "edges": [edge(START, END), *data["edges"][2:], edge(START, begin["sourceNodeId"])]},
        {
            ("edge.dangling", START, "targetNodeId"),
            *(("graph.unreachable", one["id"], "id") for one in data["nodes"][1:-1]),
        },
    )
    yield (
        "the start of no body",
        around(node("iteration-node-start::1")),
        {("node.type", "iteration-node-start::1", "id")},
    )
    yield (
        "a body without an end",
        drop_edge(data, joiner["id"]),
        {
            ("end.missing", owner, "nodeParam.IterationStartNodeId"),
            ("graph.unreachable", "iteration-node-end::1", "id"),
            ("ref.node", "iteration-node-end::1", "inputs.result"),
        },
    )
    yield (
        "a cycle in a body",
        {**data, "edges": [*data["edges"], edge(joiner["id"], begin["sourceNodeId"])]},
        {("graph.cycle", "iteration-node-start::1", "edges")},
    )
    yield (
        "refs into a body and to its owner",
        with_body(
            iteration(items(), text_joiner("text-joiner::1", "x", ref("a", owner, "result"))),
            ref("a", "text-joiner::1", "output"),
        ),
        {("ref.node", "text-joiner::1", "inputs.a"), ("ref.node", END, "inputs.a")},
    )
    yield (
        "bodies that cannot be found",
        flow([
            start(), node("iteration::1", {"IterationStartNodeId": "iteration-node-start::9"}, inputs=[items()],
                          outputs=[output("r", "array")]),
            node("loop::1", {"LoopStartNodeId": END, "maxCount": 1}), end()]),
        {
            ("param.schema", "iteration::1", "nodeParam.IterationStartNodeId"),
            ("param.schema", "loop::1", "nodeParam.LoopStartNodeId"),
        },
    )  # fmt: skip
    (first, *rest), inner = iteration(items())
    second = {**first, "id": "iteration::2"}
    yield (
        "a body with two owners",
        flow([start(), first, second, end(), *rest],
             [edge(START, "iteration::1"), edge("iteration::1", "iteration::2"), edge("iteration::2", END), *inner]),
        {("param.schema", "iteration::2", "nodeParam.IterationStartNodeId")},
    )  # fmt: skip
    yield (
        "names that nothing carries",
        with_body(([
            {**first, "data": {**first["data"], "outputs": [output("other", "array")]}},
            node("iteration-node-start::1", outputs=[output("ys")]),
            rest[1] | {"data": {**rest[1]["data"], "inputs": [literal("result", "1")]}},
        ], inner)),
        {("ref.output", "iteration-node-start::1", "outputs.ys"), ("ref.output", owner, "outputs.other")},
    )  # fmt: skip
    yield (
        "ends where they do not belong",
        flow([start(), first, node("iteration-node-end::9"), end(), *rest, end(node_id="node-end::9")],
             [edge(START, owner), edge(owner, END), edge(owner, "iteration-node-end::9"), *inner,
              edge("iteration-node-start::1", "node-end::9")]),
        {("node.type", "iteration-node-end::9", "id"), ("node.type", "node-end::9", "id")},
    )  # fmt: skip


CASES = list(bad_flows())


@pytest.mark.parametrize(("data", "expected"), [one[1:] for one in CASES], ids=[one[0] for one in CASES])
def test_each_fault_is_told_exactly(data: Any, expected: Found) -> None:
    checked = check_flow(data)
    assert found(checked) == expected
    assert checked.flow is None
    assert (
        checked.total
        == len(checked.violations)
        == len({one.pointer + one.message for one in checked.violations})
    )
    for one in checked.violations:
        assert one.rule in RULES
        assert resolves(data, one.pointer), one


def test_the_table_breaks_every_rule() -> None:
    assert {rule for _, _, expected in CASES for rule, _, _ in expected} == set(RULES) - {"flow.recursion"}


def resolves(data: Any, pointer: str) -> bool:
    """Whether a pointer leads to something, or to a member that is not there of something that is."""
    steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
    for step in steps:
        if isinstance(data, dict) and step in data:
            data = data[step]
        elif isinstance(data, list) and step.isdigit() and int(step) < len(data):
            data = data[int(step)]
        else:
            return isinstance(data, dict)
    return True


GOOD: dict[str, Data] = {
    "node-start": flow([start(output("n", "integer", required=True, default=3)), end(ref("n", START, "n", "integer"))]),
    "node-end": flow([start(), end(QUERY, template="{{q}}")]),
    "message": flow([start(), message("message::1", "{{q}}", QUERY), end()]),
    "text-joiner": around(text_joiner("text-joiner::1", "{{q}}!", QUERY)),
    "text-joiner split": around(
        node("text-joiner::1", {"mode": 1, "separator": ","}, inputs=[QUERY], outputs=[output("p", "array")])
    ),
    "if-else": around(
        if_else(
            case("1", condition("in-q", "is", "in-r"), condition("in-q", "not_empty", "")),
            case("2", level=999),
            inputs=[QUERY, literal("r", "x")],
        ),
        handles=("branch_one_of::1", "intent_chain|branch_one_of::2"),
    ),
    "iteration": with_body(
        iteration(
            items(), text_joiner("text-joiner::1", "{{q}} {{x}}", QUERY, ref("x", "iteration-node-start::1", "xs"))
        ),
        ref("r", "iteration::1", "result", "array"),
    ),
    "loop": with_body(
        loop(
            literal("n", 0, "integer"),
            code("code::1", output("n", "integer"), inputs=[ref("n", "loop-node-start::1", "n", "integer")]),
            until={"logicalOperator": "and", "conditions": [condition("in-n", "ge", "in-n")]},
        )
    ),
    "node-variable": around(node("node-variable::1", {"method": "set"}, inputs=[QUERY])),
    "plugin": around(
        node("plugin::1", {"pluginId": "tool@1", "operationId": "get", "version": "V1.0",
                           "businessInput": [{"name": "a", "value": {"node_id": 1}}]},
             outputs=[output("pet", "object")])
    ),
    "hotplug-plugin": around(node("hotplug-plugin::1", {"pluginId": "1", "action": "run", "configId": ""})),
    "flow": around(node("flow::1", {"flowId": "12", "version": "v1.2"}, outputs=[output("r")])),
    "agent": around(node("agent::1", {"agentName": "helper", "context": {}}, inputs=[QUERY], outputs=[output("r")])),
    "llm": flow([
        start(), node("spark-llm::1", LLM, inputs=[QUERY], outputs=[output("text")]),
        end(ref("a", "spark-llm::1", "text"), ref("b", "spark-llm::1", "REASONING_CONTENT"),
            ref("c", "spark-llm::1", "errorCode", "integer"))]),
    "decision-making": around(
        node("decision-making::1", {**LLM, "intentChains": INTENTS}, inputs=[QUERY]),
        handles=("intent-one-of::yes", "intent_chain|intent-one-of::no"),
    ),
    "extractor-parameter": around(
        node("extractor-parameter::1", {"instruction": "find {{q}}"}, inputs=[QUERY], outputs=[output("city")])
    ),
    "question-answer": flow([
        start(), node("question-answer::1", {"question": "{{q}}?", "answerType": "direct", "needReply": True,
                                             "timeout": 3}, inputs=[QUERY]),
        end(ref("a", "question-answer::1", "content"))]),
    "question-answer option": around(
        node("question-answer::1", {"question": "?", "answerType": "option", "optionAnswer": OPTIONS}),
        handles=("option-one-of::a", "option-one-of::b"),
    ),
    "code": around(
        code("ifly-code::1", output("o"), retry={"shouldRetry": True, "errorStrategy": 2, "maxRetries": 5}),
        handles=("", "fail_one_of::7"),
    ),
    "iteration in a loop": with_body((
        [*loop(literal("n", "a"), )[0], *iteration(items(), code("code::2"))[0]],
        [edge("loop-node-start::1", "iteration::1"), edge("iteration::1", "loop-node-end::1"),
         *iteration(items(), code("code::2"))[1]],
    )),
}  # fmt: skip


@pytest.mark.parametrize("data", GOOD.values(), ids=list(GOOD))
def test_a_good_flow_is_a_flow(data: Data) -> None:
    checked = check_flow(data)
    assert found(checked) == set()
    assert checked.warnings == ()
    assert checked.flow is not None
    assert list(checked.flow.nodes) == [one["id"] for one in data["nodes"]]
    assert sorted(one for body in checked.flow.bodies.values() for one in body) == sorted(checked.flow.nodes)
    assert checked.flow.start is checked.flow.nodes[START]


def test_a_flow_has_one_spelling() -> None:
    data = {
        "nodes": [
            start(),
            {
                "id": "ifly-code::1",
                "data": {
                    "node_meta": {"node_type": "x", "alias_name": "Count"},
                    "inputs": [
                        {"name": "a", "schema": {"type": "string", "value": {
                            "type": "ref", "content": {"node_id": START, "name": "query"}}}},
                        literal("b", {"node_id": 1}, "object"),
                    ],
                    "outputs": [output("r", "object")],
                    "node_param": {"code": "x", "code_language": "python"},
                    "retry_config": {
                        "should_retry": True, "max_retries": 2, "error_strategy": 1, "timeout": 5,
                        "custom_output": {"r": {"error_code": 1}},
                    },
                },
            },
            end(),
        ],
        "edges": [
            {"source_node_id": START, "target_node_id": "ifly-code::1"},
            {"source_node_id": "ifly-code::1", "target_node_id": END, "source_handle": None},
        ],
    }  # fmt: skip
    made = check_flow(data).flow
    assert made is not None
    one = made.nodes["ifly-code::1"]
    assert (one.type, one.alias_name) == ("code", "Count")
    assert one.params == {"code": "x", "codeLanguage": "python"}
    assert one.retry == RetryConfig(True, 2, 1, {"r": {"error_code": 1}}, 5.0)
    assert [given.value for given in one.inputs] == [Ref(START, ("query",)), Literal({"node_id": 1})]
    assert [(edge.source, edge.target, edge.handle) for edge in made.edges] == [
        (START, "ifly-code::1", ""),
        ("ifly-code::1", END, ""),
    ]


def test_a_pointer_has_the_spelling_of_the_data() -> None:
    broken = {"id": "code::1", "data": {"node_param": {"code": "x", "code_language": "cobol"}}}
    (one,) = check_flow(around(broken)).violations
    assert (one.field, one.pointer) == ("nodeParam.codeLanguage", "/nodes/1/data/node_param/code_language")
    assert one.violation() == Violation(
        one.pointer, "param.schema", f"code::1 nodeParam.codeLanguage: {one.message}"
    )


def test_of_two_spellings_ours_is_read() -> None:
    ours, other = {"code": "ours"}, {"code": "other"}
    for params in ({"nodeParam": ours, "node_param": other}, {"node_param": other, "nodeParam": ours}):
        made = check_flow(around({"id": "code::1", "data": params})).flow
        assert made is not None
        assert made.nodes["code::1"].params == ours


def test_a_loop_gives_out_what_its_body_leaves_alone() -> None:
    nodes, edges = loop(literal("n", 0, "integer"))
    nodes[0]["data"]["inputs"].append(literal("kept", "a"))
    nodes[0]["data"]["outputs"].append(output("kept"))
    assert check_flow(with_body((nodes, edges))).flow is not None


def test_a_domain_is_a_model() -> None:
    made = check_flow(around(node("llm::1", {"domain": "d", "template": ""}, outputs=[output("o")]))).flow
    assert made is not None
    assert made.nodes["llm::1"].params["model"] == "d"


def test_what_is_switched_off_is_not_looked_at() -> None:
    retry = {"shouldRetry": False, "maxRetries": 99, "errorStrategy": 2, "customOutput": "", "timeout": 7}
    made = check_flow(around(code(retry=retry))).flow
    assert made is not None
    assert made.nodes["code::1"].retry == RetryConfig()


def test_another_type_is_a_warning() -> None:
    data = flow(
        [
            start(output("o", "array", items=declared("object", properties={"n": declared("integer")}))),
            end(
                ref("list", START, "o.n", "array"),
                ref("one", START, "o[0].n", "number"),
                ref("bad", START, "o.n", "integer"),
                ref("any", START, "o[0].n", "string"),
            ),
        ]
    )
    checked = check_flow(data)
    assert checked.flow is not None
    assert [(one.rule, one.field) for one in checked.warnings] == [
        ("ref.output", "inputs.bad"),
        ("ref.output", "inputs.any"),
    ]


def test_the_parameters_of_a_run_have_a_schema() -> None:
    first = start(
        output("n", "integer", required=True, description="how many"),
        output("o", "object", required=False, properties={"a": declared()}, default={"a": "x"}),
    )
    assert check_flow(flow([first, end()])).input_schema == {
        "type": "object",
        "properties": {
            "n": {"type": "integer", "description": "how many"},
            "o": {"type": "object", "properties": {"a": {"type": "string"}}, "default": {"a": "x"}},
        },
        "required": ["n"],
        "additionalProperties": False,
    }


def side_by_side(
    count: int, *, before: int = 0, after: int = 0, beside: bool = False, kind: str = "code"
) -> Data:
    """A chain of code nodes, `count` nodes at the same time, another chain; and a message beside all of them."""
    params: Data = {"code": "x"} if kind == "code" else {"question": "?", "answerType": "direct"}
    first = [code(f"code::a{number}") for number in range(before)]
    middle = [node(f"{kind}::m{number}", params) for number in range(count)]
    last = [code(f"code::z{number}") for number in range(after)]
    head, tail = (first or [start()])[-1], (last or [end()])[0]
    edges = [*chain(start(), *first), *chain(*last, end())]
    edges += [one for each in middle for one in chain(head, each, tail)]
    nodes = [start(), *first, *middle, *last, end()]
    if beside:
        nodes.append(node("message::1", {"template": "m"}))
        edges += [edge(START, "message::1"), edge("message::1", END)]
    return flow(nodes, edges)


def looped(data: Data, count: int) -> Data:
    """A loop whose body are the steps of a flow."""
    (owner, begin, finish), _ = loop(literal("n", "a"), count=count)
    ids = {START: begin["id"], END: finish["id"]}
    edges = [
        edge(*(ids.get(one[name], one[name]) for name in ("sourceNodeId", "targetNodeId")))
        for one in data["edges"]
    ]
    inside = [one for one in data["nodes"] if one["id"] not in ids]
    return flow(
        [start(), owner, begin, *inside, finish, end()],
        [edge(START, owner["id"]), edge(owner["id"], END), *edges],
    )


@pytest.mark.parametrize(
    ("data", "operations"),
    [
        (flow([start(), message(), text_joiner(), end()]), 0),
        (flow([start(), code(), node("node-variable::1", {"method": "get"}), end()]), 2),
        (GOOD["node-variable"], 1),
        (GOOD["iteration"], 0),
        (with_body(iteration(items(), code())), 200),
        (with_body(loop(literal("n", "a"), code(), text_joiner(), count=5)), 5),
        (GOOD["iteration in a loop"], 3 * 200),
        (side_by_side(2), 2 + 1),
        (side_by_side(7), 7 + 3),
        (side_by_side(2, before=4, after=3), 9 + 1),
        (side_by_side(2, before=4, after=3, beside=True), 9 + 1),
        (side_by_side(2, kind="question-answer"), 2),
        (looped(side_by_side(2, before=1), 5), 5 * 3 + 5),
    ],
    ids=[
        "pure",
        "steps",
        "set",
        "pure body",
        "iteration",
        "loop",
        "nested",
        "two at once",
        "seven at once",
        "two within a chain",
        "with a message beside",
        "questions",
        "two at once in a loop",
    ],
)
def test_operations_are_counted_at_their_worst(data: Data, operations: int) -> None:
    assert check_flow(data).operations == operations


def test_operations_of_nested_loops_are_bounded() -> None:
    nodes, edges, outer = [start(), end()], [edge(START, "loop::0"), edge("loop::0", END)], 40
    for depth in range(outer):
        (owner, begin, finish), _ = loop(literal("n", "a"), count=1_000, suffix=str(depth))
        nodes += [owner, begin, finish]
        inside = f"loop::{depth + 1}" if depth + 1 < outer else "code::1"
        edges += [edge(begin["id"], inside), edge(inside, finish["id"])]
    checked = check_flow({"nodes": [*nodes, code()], "edges": edges})
    assert found(checked) == set()
    assert checked.operations == 10**9


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (None, ""),
        ([], ""),
        ({}, "nodes"),
        ({"nodes": {}}, "nodes"),
        ({"nodes": [], "edges": 3}, "edges"),
        ({"nodes": [{}] * 10_001}, "nodes"),
        ({"nodes": [], "edges": [{}] * 50_001}, "edges"),
        ({"nodes": [], "x": float("nan")}, ""),
        ({"nodes": [], "x": "\ud800"}, ""),
        ({"nodes": [], 1: 2}, ""),
        ({"nodes": [], "x": {1, 2}}, ""),
        ({"nodes": [], "x": "é" * (MAX_DATA_BYTES // 2)}, ""),
    ],
    ids=str,
)
def test_data_that_is_no_flow(data: Any, place: str) -> None:
    checked = check_flow(data)
    assert found(checked) == {("param.schema", "", place)}
    assert checked.input_schema["properties"] == {}


def test_deep_data_is_refused_without_recursing() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert found(check_flow({"nodes": [], "x": deep})) == {("param.schema", "", "")}
    while deep:  # taken apart from outside: freeing it at once would recurse
        deep = deep.pop()


def test_deep_schemas_are_read() -> None:
    schema = declared()
    for _ in range(28):
        schema = declared("object", properties={"a": schema})
    data = flow([start({"name": "o", "schema": schema}), end(ref("a", START, ".".join(["o"] + ["a"] * 28)))])
    assert check_flow(data).violations == ()


def test_violations_are_kept_to_a_thousand_and_counted() -> None:
    checked = check_flow({"nodes": [node(f"message::{number}") for number in range(5_000)]})
    assert len(checked.violations) == MAX_REPORTED
    assert checked.total >= 5_000


def test_too_many_inputs_are_cut_before_they_are_explained() -> None:
    data = around(node("message::1", {"template": "x"}, inputs=[{}] * 100_000))
    checked = check_flow(data)
    assert ("param.schema", "message::1", "inputs") in found(checked)
    assert checked.total <= 101


def test_inputs_that_are_too_many_are_told_once() -> None:
    surplus = [literal(f"i{number}", "") for number in range(201)]
    (one,) = check_flow(around(message("message::1", "x", *surplus))).violations
    assert one.message == "has 201 members; at most 200 are allowed"


def test_reasons_have_a_budget() -> None:
    spoilt = [case(str(number)) for number in range(150)] + [{"id": "no"}]
    checked = check_flow({"nodes": [if_else(*spoilt, node_id=f"if-else::{number}") for number in range(200)]})
    told = [one for one in checked.violations if one.rule == "param.schema"]
    assert len(told) == 200
    assert {one.field for one in told[:50]} == {"nodeParam.cases[150].id"}
    assert {one.field for one in told[-50:]} == {"nodeParam"}


def calling(*called: tuple[str, str]) -> Data:
    nodes = [
        node(f"flow::{number}", {"flowId": flow_id, "version": version})
        for number, (flow_id, version) in enumerate(called)
    ]
    return flow([start(), *nodes, end()])


class Published:
    def __init__(self, flows: dict[tuple[str, str | None], Any]) -> None:
        self.flows, self.asked = flows, list[tuple[str, str | None]]()

    def __call__(self, flow_id: str, version: str | None) -> Any | None:
        self.asked.append((flow_id, version))
        return self.flows.get((flow_id, version))


RECURSIONS = [
    ("itself", [("1", "")], {}, {"flow::0"}),
    ("itself through another", [("2", "")], {("2", None): calling(("1", ""))}, {"flow::0"}),
    ("an old version of itself", [("1", "v1")], {("1", "v1"): calling()}, set()),
    ("an old version that calls the latest", [("1", "v1")], {("1", "v1"): calling(("1", ""))}, {"flow::0"}),
    (
        "a circle of others",
        [("2", ""), ("4", "")],
        {("2", None): calling(("3", "")), ("3", None): calling(("2", "")), ("4", None): calling()},
        {"flow::0"},
    ),
    (
        "a way to one that calls itself",
        [("2", ""), ("4", "")],
        {("2", None): calling(("3", "")), ("3", None): calling(("3", "")), ("4", None): calling()},
        {"flow::0"},
    ),
    (
        "one flow by two ways",
        [("2", ""), ("3", "")],
        {("2", None): calling(("3", "")), ("3", None): calling()},
        set(),
    ),
    ("a version in two spellings", [("2", "1")], {("2", "1"): calling(("2", "v1.0"))}, {"flow::0"}),
    (
        "junk that was published",
        [("2", "")],
        {("2", None): {"nodes": [1, {"id": "flow::1", "data": 3}]}},
        set(),
    ),
]


@pytest.mark.parametrize(
    ("called", "published", "endless"), [one[1:] for one in RECURSIONS], ids=[one[0] for one in RECURSIONS]
)
def test_recursion_is_found(called: Any, published: Any, endless: set[str]) -> None:
    checked = check_flow(calling(*called), subflow=Published(published), flow_id="1")
    assert found(checked) == {("flow.recursion", one, "nodeParam.flowId") for one in endless}


def test_a_flow_that_nobody_published() -> None:
    published = Published({})
    checked = check_flow(calling(("2", ""), ("2", ""), ("3", "v9")), subflow=published)
    assert found(checked) == {("param.schema", f"flow::{number}", "nodeParam.flowId") for number in range(3)}
    assert published.asked == [("2", None), ("3", "v9")]


def test_without_a_source_of_flows_none_is_looked_at() -> None:
    assert check_flow(calling(("1", "")), flow_id="1").flow is not None


def test_a_tree_of_flows_without_end_is_given_up() -> None:
    asked: list[str] = []

    def more(flow_id: str, version: str | None) -> Data:
        asked.append(flow_id)
        return calling((flow_id + "0", ""), (flow_id + "1", ""))

    checked = check_flow(calling(("1", "")), subflow=more)
    assert found(checked) == {("flow.recursion", "", "nodes")}
    assert len(asked) == MAX_SUBFLOWS
