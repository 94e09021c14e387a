"""The walkthrough: plugins, tools, agents and flows on the local stack, over the public API only.

`python -m infra.walkthrough` starts a stack, walks, writes `.local/demo.json` and exits (0 only if every step held);
with `--serve` it then serves until Ctrl-C, also where a step did not hold. Settings are read from the shell.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path

from infra.functions import ROOT
from infra.local.__main__ import DEFAULT_PORT, free_port, port_note, settings_of, until_signal
from infra.local.folder import FolderInUse
from infra.local.stack import LocalStack, StackFailed
from infra.walkthrough.outside import Outside
from infra.walkthrough.packaged import unpack
from infra.walkthrough.steps import API_PROCESSES, Step
from infra.walkthrough.tenant import Tenant
from infra.walkthrough.walk import Walkthrough

PORTS = range(DEFAULT_PORT, DEFAULT_PORT + 5)
"""Of the stack, helpdesk, handbook, cmdb and webhook, where they are free."""


def main(arguments: list[str] | None = None) -> int:
    """Run the walkthrough; return the process's exit status."""
    parser = argparse.ArgumentParser(prog="python -m infra.walkthrough", description=__doc__)
    parser.add_argument("--serve", action="store_true", help="serve afterwards, until Ctrl-C")
    parser.add_argument(
        "--package",
        type=Path,
        help="run what `python -m infra.aws package` built there, not the checkout; for this Python",
    )
    options = parser.parse_args(arguments)
    wait_for_signal = until_signal()
    local = ROOT / ".local"
    folder = local if options.serve else local / "demo"
    if not options.serve:
        # The demonstration begins from nothing; `make run` keeps its state.
        shutil.rmtree(folder, ignore_errors=True)
    # What is registered at the example servers, and what a shell has exported, is good after the next start as well.
    port, *others = [free_port(port) if options.serve else 0 for port in PORTS]
    outside = Outside(*others)
    began = time.perf_counter()
    # The walkthrough works with the admin that the stack itself makes.
    environment = {
        name: value
        for name, value in settings_of(os.environ).items()
        if not name.startswith("HOTPLUG_ADMIN_")
    }
    environment["HOTPLUG_PRIVATE_ENDPOINTS"] = outside.endpoints(
        environment.get("HOTPLUG_PRIVATE_ENDPOINTS", "")
    )
    of_package = unpack(options.package, local / "package") if options.package else None
    found = of_package.variables if of_package else {}
    try:
        with LocalStack(
            folder,
            port=port,
            api_processes=API_PROCESSES,
            environment=environment | found,
            runtime_environment=found,
            task_root=of_package.code if of_package else ROOT,
        ) as stack:
            at = stack.url + (port_note(DEFAULT_PORT, port) if options.serve else "")
            print(f"The local stack answers at {at} after {time.perf_counter() - began:.1f} s.\n", flush=True)
            walkthrough = Walkthrough(stack, outside, local / "examples")
            ok = walkthrough.run()
            _write(local / "demo.json", ok, walkthrough.steps)
            if options.serve:
                _serve(stack, outside, walkthrough.tenant)
                wait_for_signal()
    except (FolderInUse, StackFailed) as error:
        print(f"the local stack did not start: {error}", file=sys.stderr)
        return 1
    finally:
        outside.close()
    return 0 if ok else 1


def _write(path: Path, ok: bool, steps: list[Step]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"ok": ok, "steps": [asdict(step) for step in steps]}
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    held = sum(step.ok for step in steps)
    print(f"\n{held} of {len(steps)} steps held; {path} has them.", flush=True)


def _serve(stack: LocalStack, outside: Outside, tenant: Tenant) -> None:
    admin = stack.admin_credential or "(none)"
    print(
        f"""
base URL          {stack.url}
admin credential  {admin}
S3 endpoint       {stack.s3_endpoint}
logs              {stack.logs_folder}
the app above     {tenant.alias}, its credential {tenant.credential or "(none)"}

In a second terminal, for every command of docs/:
  export HOTPLUG_URL={stack.url} HOTPLUG_CREDENTIAL={admin} HOTPLUG_S3={stack.s3_endpoint}
  export HELPDESK_URL={outside.helpdesk.url} HANDBOOK_URL={outside.handbook.url} CMDB_URL={outside.cmdb.url}
Try next:
  curl -s $HOTPLUG_URL/api/v1/me -H "Authorization: Bearer $HOTPLUG_CREDENTIAL"
docs/getting-started.md goes on from here; docs/tools.md, docs/agents.md and docs/flows.md with tools, agents and flows.
Ctrl-C stops everything; the state stays in .local/.
""",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
