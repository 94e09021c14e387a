"""The flow of the picture in the documentation: an answering service with everything that a drawing can show."""

from __future__ import annotations

from tests.flow_builders import (
    END,
    START,
    Data,
    code,
    edge,
    end,
    flow,
    iteration,
    message,
    node,
    output,
    ref,
    start,
    text_joiner,
)

NAME = "Customer questions"
INTENT, PLUGIN, QUESTION, ANSWER = "decision-making::1", "plugin::1", "question-answer::1", "llm::answer"
_FAILING = {"shouldRetry": True, "maxRetries": 2, "errorStrategy": 2}


def named(one: Data, name: str) -> Data:
    """The node under another name."""
    one["data"]["nodeMeta"]["aliasName"] = name
    return one


def example() -> Data:
    """A valid flow."""
    intents = [
        {"id": f"intent-one-of::{suffix}", "name": name, "intentType": kind}
        for suffix, name, kind in (
            ("order", "An order", 2),
            ("many", "Several things", 2),
            ("other", "Anything else", 1),
        )
    ]
    options = [
        {"id": f"option-one-of::{suffix}", "name": name, "content": name, "type": kind}
        for suffix, name, kind in (("yes", "Yes", 2), ("no", "No", 1))
    ]
    query = ref("query", START, "query")
    each = named(
        node("llm::each", {"model": "m", "template": "{{parts}}"}, outputs=[output("text")],
             inputs=[ref("parts", "iteration-node-start::1", "parts")]),
        "Answer one part",
    )  # fmt: skip
    body, inner = iteration(
        ref("parts", "code::split", "parts", "array", items={"type": "string"}),
        each,
        named(text_joiner("text-joiner::tidy", "{{text}}", ref("text", "llm::each", "text")), "Tidy up"),
    )
    for one, name in ((body[0], "For each part"), (body[1], "Part"), (body[-1], "Its answer")):
        named(one, name)
    answer = node(ANSWER, {"model": "m", "template": "{{query}}"}, inputs=[query], outputs=[output("text")])
    nodes = [
        named(start(), "Start"),
        named(
            node(INTENT, {"model": "m", "template": "{{query}}", "intentChains": intents}, inputs=[query]),
            "What is it about?",
        ),
        named(
            node(PLUGIN, {"pluginId": "tool@orders", "operationId": "getOrder"}, retry=_FAILING,
                 outputs=[output("state")]),
            "Look the order up",
        ),
        named(
            node(QUESTION, {"question": "Call a person?", "answerType": "option", "optionAnswer": options}),
            "Shall somebody call you?",
        ),
        named(code("code::split", output("parts", "array", items={"type": "string"})), "Split the question"),
        *body,
        named(answer, "Answer"),
        named(message("message::called", "We will call you."), "We will call you"),
        named(end(), "End"),
    ]  # fmt: skip
    edges = [
        edge(START, INTENT),
        edge(INTENT, PLUGIN, "intent-one-of::order"),
        edge(INTENT, "code::split", "intent-one-of::many"),
        edge(INTENT, ANSWER, "intent-one-of::other"),
        edge(PLUGIN, ANSWER),
        edge(PLUGIN, QUESTION, "fail_one_of::1"),
        edge(QUESTION, "message::called", "option-one-of::yes"),
        edge(QUESTION, END, "option-one-of::no"),
        edge("message::called", END),
        edge("code::split", "iteration::1"),
        edge("iteration::1", END),
        edge(ANSWER, END),
        *inner,
    ]
    return flow(nodes, edges)
