"""Everything that the documentation tells the reader to type is typed here, and everything it lists is compared.

A fenced block of a document is one of these:

- ```` ```console ````: commands after `$ ` (continued after `> `), each followed by what it prints. Every line of
  output must occur in the real output, in that order; `…` stands for anything. Every command must succeed. The
  commands of one document run in one bash, in a folder that looks like a fresh clone.
- ```` ```json file=plugin/manifest.json ````: a file that the reader saves; it is written before the next command.
- ```` ```json node=hello/text-joiner::greet ````: a node of an example in examples/flows, and exactly that.
- ```` ```text ````, ```` ```mermaid ````: shown, not run.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from chalicelib.core import errors
from chalicelib.flows.dsl.findings import RULES
from chalicelib.flows.dsl.params import OPERATORS, PARAMS
from chalicelib.flows.engine import errors as node_errors
from examples.broken import BROKEN
from infra.functions import ROOT
from infra.local.stack import LocalStack
from infra.walkthrough.outside import Outside
from infra.walkthrough.walk import Walkthrough
from tests.least_privilege.watched import WatchedStack

DOCUMENTS = ("README.md", *(f"docs/{name}.md" for name in (
    "getting-started", "plugin-authors", "tools", "agents", "flows", "api", "operations", "concepts",
)))  # fmt: skip
SHOWN = frozenset({"text", "mermaid"})
COMMAND_S = 90
# The port that the documents use for a server of the reader's own.
HOOK_PORT = "9099"
# What a clone consists of, as far as the documents use it.
ADDED_TO = "chalicelib"
CLONED = ("app.py", "examples", "infra", "migrations", "Makefile", "requirements.txt")
_FENCE = re.compile(r"^```(?P<info>\S.*)?$")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file or the node that it is, and its text."""

    language: str
    file: str | None
    node: str | None
    line: int
    text: str


@dataclass(frozen=True)
class Command:
    """One command and the lines of its output that are shown."""

    text: str
    expected: tuple[str, ...]
    line: int


def read_blocks(document: str) -> list[Block]:
    """Return the fenced blocks of a document in their order."""
    blocks: list[Block] = []
    info: str | None = None
    began, lines = 0, list[str]()
    for number, line in enumerate((ROOT / document).read_text().splitlines(), 1):
        fence = _FENCE.match(line)
        if info is None and fence:
            info, began, lines = fence["info"] or "", number, []
        elif info is not None and fence and not fence["info"]:
            language, _, place = info.partition(" ")
            named = dict([place.split("=", 1)] if place else [])
            text = "\n".join(lines) + "\n"
            blocks.append(Block(language, named.get("file"), named.get("node"), began, text))
            info = None
        elif info is not None:
            lines.append(line)
    assert info is None, f"{document}:{began}: a block is not closed"
    return blocks


def read_commands(block: Block) -> list[Command]:
    """Return the commands of a console block."""
    found: list[tuple[list[str], list[str], int]] = []
    for offset, line in enumerate(block.text.splitlines(), 1):
        if line.startswith("$ "):
            found.append(([line[2:]], [], block.line + offset))
        elif line == ">" or line.startswith("> "):
            found[-1][0].append(line[2:])
        elif line:
            found[-1][1].append(line)
    return [Command("\n".join(text), tuple(expected), line) for text, expected, line in found]


def missing(expected: tuple[str, ...], output: str) -> str | None:
    """Return the first expected line that the output does not have in its place."""
    position = 0
    for line in expected:
        for piece in filter(None, (piece.strip() for piece in line.split("…"))):
            at = output.find(piece, position)
            if at < 0:
                return line
            position = at + len(piece)
    return None


class Shell:
    """One bash that keeps its variables from command to command."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, cwd=folder, env=environment, start_new_session=True,
        )  # fmt: skip

    def run(self, command: str) -> tuple[int, str]:
        """Return exit status and output, of both streams together."""
        assert self._process.stdin is not None
        script = f"{{ {command}\n}} </dev/null\nprintf '\\036%d\\036' \"$?\"\n"
        self._process.stdin.write(script.encode())
        self._process.stdin.flush()
        output = self._read_until_mark()
        text, status, _ = output.rsplit("\036", 2)
        return int(status), text

    def _read_until_mark(self) -> str:
        assert self._process.stdout is not None
        received, deadline = b"", time.monotonic() + COMMAND_S
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while received.count(b"\036") < 2:
                assert selector.select(deadline - time.monotonic()), (
                    f"no end after {COMMAND_S} s: {received!r}"
                )
                piece = os.read(self._process.stdout.fileno(), 65536)
                assert piece, f"the shell ended: {received!r}"
                received += piece
        return received.decode()

    def close(self) -> None:
        """End the shell and whatever it left in the background."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Reader:
    """A running stack and the folder of someone who reads the documents."""

    stack: LocalStack
    outside: Outside
    folder: Path
    hook_port: str

    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "LANG": "C.UTF-8",
            "HOTPLUG_URL": self.stack.url,
            "HOTPLUG_CREDENTIAL": self.stack.admin_credential or "",
            "HOTPLUG_S3": self.stack.s3_endpoint,
            "HELPDESK_URL": self.outside.helpdesk.url,
            "HANDBOOK_URL": self.outside.handbook.url,
            "CMDB_URL": self.outside.cmdb.url,
        }


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("clone")
    for name in CLONED:
        (folder / name).symlink_to(ROOT / name)
    # The reader adds an agent: to a copy of his own.
    shutil.copytree(ROOT / ADDED_TO, folder / ADDED_TO, ignore=shutil.ignore_patterns("__pycache__"))
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    # Not a link: an interpreter finds its packages by the path it was started under.
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    port = str(free_port())
    outside = Outside()
    environment = {
        "HOTPLUG_PRIVATE_ENDPOINTS": outside.endpoints(f"localhost:{port}"),
        "HOTPLUG_RATE": "1000",
        "HOTPLUG_BURST": "1000",
    }
    try:
        with WatchedStack(folder / ".local", api_processes=2, environment=environment) as stack:
            yield Reader(stack, outside, folder, port)
    finally:
        outside.close()


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
def test_document_does_what_it_shows(document: str, reader: Reader) -> None:
    shell = Shell(reader.folder, reader.environment())
    try:
        for block in read_blocks(document):
            if block.file is not None:
                path = reader.folder / block.file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text.replace(HOOK_PORT, reader.hook_port))
            elif block.language == "console":
                for command in read_commands(block):
                    check(document, command, shell, reader.hook_port)
    finally:
        shell.close()


def check(document: str, command: Command, shell: Shell, hook_port: str) -> None:
    status, output = shell.run(command.text.replace(HOOK_PORT, hook_port))
    place = f"{document}:{command.line}: {command.text}\n"
    assert status == 0, f"{place}ended with {status}: {output}"
    expected = tuple(line.replace(HOOK_PORT, hook_port) for line in command.expected)
    assert (line := missing(expected, output)) is None, f"{place}should print\n{line}\nbut prints\n{output}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_is_run_written_or_shown(document: str) -> None:
    blocks = read_blocks(document)
    known = SHOWN | {"console"}
    odd = [one for one in blocks if one.language not in known and one.file is None and one.node is None]
    assert not odd, [f"{document}:{block.line}: {block.language}" for block in odd]
    for block in blocks:
        if block.language == "console":
            assert read_commands(block), f"{document}:{block.line}: no command"
        if block.language in SHOWN:
            typed = [line for line in block.text.splitlines() if line.startswith("$ ")]
            assert not typed, f"{document}:{block.line}: a command that nothing runs"


def anchors(page: Path) -> set[str]:
    """Return the names that a page's headings have as targets of links."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere() -> None:
    pages = [ROOT / name for name in ("README.md", "CHANGELOG.md")] + sorted((ROOT / "docs").rglob("*.md"))
    broken = []
    for page in pages:
        for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", page.read_text()):
            if "://" in target:
                continue
            place = page.parent / target if target else page
            if not place.exists() or (anchor and anchor not in anchors(place)):
                broken.append(f"{page.relative_to(ROOT)}: {target}#{anchor}")
    assert not broken


def rows(document: str, heading: str) -> list[list[str]]:
    """Return the cells of the table rows below a heading, without their backquotes."""
    _, _, section = (ROOT / document).read_text().partition(f"\n{heading}\n")
    assert section, f"{document} has no {heading!r}"
    level = len(heading) - len(heading.lstrip("#"))
    body = re.split(rf"\n#{{1,{level}}} ", section)[0]
    lines = [line for line in body.splitlines() if line.startswith("|") and not set(line) <= set("|-: ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def names(document: str, heading: str) -> set[str]:
    """Return what stands in backquotes in the first cells of the tables below a heading."""
    return {name for row in rows(document, heading) for name in re.findall(r"`([^`]+)`", row[0])}


def test_endpoint_table_is_what_is_served(reader: Reader) -> None:
    served = httpx.get(f"{reader.stack.url}/openapi.json").json()["paths"]
    expected = {
        (method.upper(), path.removeprefix("/api/v1"), operation["x-role"])
        for path, operations in served.items()
        for method, operation in operations.items()
    }
    listed = set()
    for row in rows("docs/api.md", "## Every endpoint"):
        if endpoint := re.fullmatch(r"`([A-Z]+) (\S+)`", row[0]):
            listed.add((endpoint[1], endpoint[2], row[1]))
    assert listed == expected


def called(command: str) -> tuple[str, str] | None:
    """Return method and path of the request that a command of these pages makes, None where it makes none."""
    command = re.sub(r"\$\([^)]*\)", "x", command.replace("$(api", "api"))
    found = re.search(r'(?:\bapi "?|\$HOTPLUG_URL)(/[^\s"?|]*)', command)
    if not found:
        return None
    method = re.search(r"-X ([A-Z]+)", command)
    sends = re.search(r" (--json|-F) ", command)
    return (method[1] if method else "POST" if sends else "GET"), found[1]


def test_the_pages_show_every_endpoint() -> None:
    pages = ("docs/api.md", "docs/tools.md", "docs/agents.md", "docs/flows.md")
    blocks = [block for page in pages for block in read_blocks(page) if block.language == "console"]
    calls = [call for block in blocks for command in read_commands(block) if (call := called(command.text))]
    for row in rows("docs/api.md", "## Every endpoint")[1:]:
        method, path = row[0].strip("`").split()
        pattern = re.sub(r"{\w+}", "[^/]+", path)
        assert any(made == method and re.fullmatch(pattern, at) for made, at in calls), row[0]


def source() -> str:
    return "\n".join(path.read_text() for path in sorted((ROOT / "chalicelib").rglob("*.py")))


def test_every_error_code_is_listed() -> None:
    tree: list[type[errors.HotplugError]] = [errors.HotplugError]
    for kind in tree:
        tree.extend(kind.__subclasses__())
    raised = {kind.default_code for kind in tree} | set(re.findall(r'code="([^"]+)"', source()))
    raised |= set(re.findall(r'PluginFault\(\s*"\w+", "([^"]+)"', source()))
    listed = names("docs/api.md", "## Error codes")
    assert raised <= listed, f"not listed: {sorted(raised - listed)}"
    unknown = {code for code in listed if f'"{code}"' not in source()}
    assert not unknown, f"listed, but raised nowhere: {sorted(unknown)}"


def test_every_rule_of_a_package_is_listed() -> None:
    used = set(re.findall(r'"((?:zip|json|schema|manifest|wasm)\.[a-z][a-zA-Z_]*)"', source()))
    used -= {"manifest.json", "schema.json", "json.invalid", "schema.anyOf", "schema.oneOf", "schema.not"}
    # Of the parameters of a flow's run.
    used -= {"schema.additionalProperties"}
    used |= {rule for broken in BROKEN for rule in broken.rules}
    listed = names("docs/plugin-authors.md", "## Package rules")
    assert used <= listed, f"not listed: {sorted(used - listed)}"


def test_nodes_that_are_shown_stand_in_the_examples() -> None:
    shown = [block for block in read_blocks("docs/flows.md") if block.node is not None]
    for block in shown:
        example, _, node_id = str(block.node).partition("/")
        nodes = json.loads((ROOT / "examples" / "flows" / f"{example}.json").read_text())["flow"]["nodes"]
        (node,) = [one for one in nodes if one["id"] == node_id]
        assert json.loads(block.text) == node, f"docs/flows.md:{block.line}"
    assert {str(block.node).partition("/")[2].partition("::")[0] for block in shown} == set(PARAMS)
    there = {path.stem for path in (ROOT / "examples" / "flows").glob("*.json")}
    assert names("docs/flows.md", "## Examples") == there


def test_rules_errors_and_operators_of_flows_are_listed() -> None:
    assert names("docs/flows.md", "## Rules") == set(RULES)
    codes = {value for value in vars(node_errors).values() if isinstance(value, int) and value > 20_000}
    listed = {row[0] for row in rows("docs/flows.md", "## When a node fails")}
    assert {str(code) for code in codes} == {cell for cell in listed if re.fullmatch(r"\d{5}", cell)}
    assert names("docs/flows.md", "### if-else") == set(OPERATORS)
    parameters = {name for kind in ("llm", "question-answer") for name in PARAMS[kind]["properties"]}
    listed = names("docs/flows.md", "### llm") | names("docs/flows.md", "### question-answer")
    assert parameters - {"domain", "answerType"} <= listed


def test_every_setting_is_listed() -> None:
    text = source() + "\n".join(path.read_text() for path in sorted((ROOT / "infra").rglob("*.py")))
    text += (ROOT / "app.py").read_text()
    used = set(
        re.findall(r"\b((?:HOTPLUG_[A-Z]|MYSQL_(?=HOST|PORT|USER|PASSWORD|DB))[A-Z0-9_]*[A-Z0-9])\b", text)
    )
    listed = names("docs/operations.md", "## Settings")
    assert used <= listed, f"not listed: {sorted(used - listed)}"
    assert listed <= used, f"listed, but read nowhere: {sorted(listed - used)}"


def test_every_log_event_and_metric_is_listed() -> None:
    used = set(re.findall(r'telemetry\.(?:event|exception|operation|metric)\(\s*"([^"]+)"', source()))
    listed = names("docs/operations.md", "## Telemetry")
    assert used <= listed, f"not listed: {sorted(used - listed)}"


def test_every_broken_package_is_refused_as_listed(reader: Reader) -> None:
    expected = {(broken.name, broken.code, broken.rules) for broken in BROKEN}
    refused = set()
    for broken in BROKEN:
        problem = httpx.post(
            f"{reader.stack.url}/api/v1/plugins/validate-manifest",
            files={"file": (f"{broken.name}.zip", broken.build())},
            headers={"Authorization": f"Bearer {reader.stack.admin_credential}"},
            timeout=30,
        ).json()
        rules = tuple(violation["rule"] for violation in problem["errors"])
        refused.add((broken.name, problem["code"], rules))
    assert refused == expected
    listed: set[Any] = set()
    for row in rows("docs/plugin-authors.md", "### Broken packages to look at"):
        if len(row) == 3 and row[0].startswith("`"):
            name, code, rules = (re.findall(r"`([^`]+)`", cell) for cell in row)
            listed.add((name[0], code[0], tuple(rules)))
    assert listed == expected


def test_every_pinned_dependency_has_its_reason() -> None:
    pinned = set()
    for path in ROOT.glob("requirements*.txt"):
        pinned |= set(re.findall(r"^([A-Za-z0-9_-]+)[^=\n]*==", path.read_text(), re.MULTILINE))
    listed = names("docs/decisions/0001-dependencies.md", "## Pinned")
    assert listed == pinned


def test_every_decision_is_indexed() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    assert [page.name for page in sorted(folder.glob("0*.md")) if f"({page.name})" not in index] == []


def test_walkthrough_is_shown_as_it_runs(reader: Reader) -> None:
    plan = Walkthrough(reader.stack, reader.outside, reader.folder / "examples").plan
    shown = re.findall(r"^ok +[0-9.]+ ms  (.+)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert shown == [name for name, _ in plan]
