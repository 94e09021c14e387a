"""A small application with a durable function, whose executions leave traces in files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
from aws_durable_execution_sdk_python import DurableContext, StepContext, durable_execution
from aws_durable_execution_sdk_python.config import (
    CallbackConfig,
    Duration,
    JitterStrategy,
    StepConfig,
)
from aws_durable_execution_sdk_python.exceptions import CallbackError, InvokeError
from aws_durable_execution_sdk_python.retries import RetryStrategyConfig, create_retry_strategy
from chalice.app import Chalice

app = Chalice("durable-probe")


def folder(event: dict[str, Any]) -> Path:
    return Path(os.environ["PROBE_RECORD"]) / event["id"]


def trace(event: dict[str, Any], line: str) -> None:
    folder(event).mkdir(exist_ok=True)
    with (folder(event) / "trace").open("a") as file:
        file.write(f"{line} {os.getpid()}\n")


def traced(event: dict[str, Any], name: str, hold_s: float = 0) -> Callable[[StepContext], str]:
    """Return a step that leaves a line, and lasts while the test keeps a file `hold`."""

    def step(context: StepContext) -> str:
        trace(event, name)
        deadline = time.monotonic() + hold_s
        while (folder(event) / "hold").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        return name

    return step


def steps(event: dict[str, Any], context: DurableContext) -> list[str]:
    first = context.step(traced(event, "first"), name="first")
    return [first, context.step(traced(event, "second", 30), name="second")]


def parallel(event: dict[str, Any], context: DurableContext) -> list[str]:
    def branch(name: str) -> Callable[[DurableContext], str]:
        return lambda child: child.step(traced(event, name), name=name)

    return context.parallel([branch(name) for name in ("a", "b", "c")], name="branches").get_results()


def ask(event: dict[str, Any], context: DurableContext) -> str:
    def submit(callback_id: str, _: Any) -> None:
        folder(event).mkdir(exist_ok=True)
        (folder(event) / "callback.part").write_text(callback_id)
        (folder(event) / "callback.part").rename(folder(event) / "callback")

    context.step(traced(event, "before"), name="before")
    try:
        answer = context.wait_for_callback(submit, name="question")
    except CallbackError as error:
        return f"failed: {error.message}"
    return f"answered: {answer}"


def expire(event: dict[str, Any], context: DurableContext) -> str:
    callback = context.create_callback(
        name="question", config=CallbackConfig(timeout=Duration.from_seconds(event["seconds"]))
    )
    context.step(traced(event, "asked"), name="asked")
    try:
        return str(callback.result())
    except CallbackError as error:
        return f"failed: {error.message}"


def retry(event: dict[str, Any], context: DurableContext) -> int:
    def flaky(step: StepContext) -> int:
        trace(event, f"{time.time():.3f}")
        tries = len((folder(event) / "trace").read_text().splitlines())
        if tries < 2:
            raise ValueError("not yet")
        return tries

    strategy = create_retry_strategy(
        RetryStrategyConfig(
            max_attempts=3, initial_delay=Duration.from_seconds(1), jitter_strategy=JitterStrategy.NONE
        )
    )
    return context.step(flaky, name="flaky", config=StepConfig(retry_strategy=strategy))


def wait(event: dict[str, Any], context: DurableContext) -> str:
    context.step(traced(event, "before"), name="before")
    context.wait(Duration.from_seconds(event["seconds"]))
    return context.step(traced(event, "after"), name="after")


def chained(event: dict[str, Any], context: DurableContext) -> Any:
    try:
        return context.invoke(event["target"], event["payload"], name="child")
    except InvokeError as error:
        return f"failed: {error.message}"


def many(event: dict[str, Any], context: DurableContext) -> int:
    for number in range(event["count"]):
        context.step(lambda _: "x" * event.get("size", 1), name=f"s{number}")
    return event["count"]


@durable_execution
def execute(event: dict[str, Any], context: DurableContext) -> Any:
    kinds: dict[str, Callable[[dict[str, Any], DurableContext], Any]] = {
        "steps": steps, "parallel": parallel, "ask": ask, "expire": expire, "retry": retry, "wait": wait,
        "chained": chained, "many": many,
    }  # fmt: skip
    return kinds[event["do"]](event, context)


@app.lambda_function(name="run")
def run(event: Any, context: Any) -> Any:
    return execute(event, context)


@app.lambda_function(name="starter")
def starter(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Start an execution as the deployed functions do: with the client that their environment gives."""
    answer = boto3.client("lambda").invoke(
        FunctionName="run",
        InvocationType="Event",
        DurableExecutionName=event["name"],
        Payload=event["payload"],
    )
    return {"arn": answer["DurableExecutionArn"]}


@app.lambda_function(name="runtime")
def runtime(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return dict(os.environ)
