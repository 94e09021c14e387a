"""The walkthrough: plugins, tools, agents and flows on the local stack, over the public API only.

`python -m infra.walkthrough` starts a stack, walks, writes `.local/demo.json` and exits (0 only if every step held);
with `--serve` it then serves until Ctrl-C.
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
from infra.local.__main__ import until_signal
from infra.local.stack import LocalStack
from infra.walkthrough.outside import Outside
from infra.walkthrough.packaged import unpack
from infra.walkthrough.steps import API_PROCESSES, Step
from infra.walkthrough.tenant import Tenant
from infra.walkthrough.walk import Walkthrough


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
    outside = Outside()
    began = time.perf_counter()
    more = os.environ.get("HOTPLUG_PRIVATE_ENDPOINTS", "")
    environment = {"HOTPLUG_PRIVATE_ENDPOINTS": outside.endpoints(more)}
    of_package = unpack(options.package, local / "package") if options.package else None
    found = of_package.variables if of_package else {}
    try:
        with LocalStack(
            folder,
            api_processes=API_PROCESSES,
            environment=environment | found,
            runtime_environment=found,
            task_root=of_package.code if of_package else ROOT,
        ) as stack:
            print(
                f"The local stack answers at {stack.url} after {time.perf_counter() - began:.1f} s.\n",
                flush=True,
            )
            walkthrough = Walkthrough(stack, outside, local / "examples")
            ok = walkthrough.run()
            _write(local / "demo.json", ok, walkthrough.steps)
            if options.serve and ok:
                _serve(stack, outside, walkthrough.tenant)
                wait_for_signal()
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
    print(
        f"""
base URL          {stack.url}
admin credential  {stack.admin_credential}
its own app       {tenant.credential}

Try next:
  export HOTPLUG_URL={stack.url} HOTPLUG_CREDENTIAL={tenant.credential}
  curl -s $HOTPLUG_URL/api/v1/plugins -H "Authorization: Bearer $HOTPLUG_CREDENTIAL"
  curl -s $HOTPLUG_URL/openapi.json
  export HELPDESK_URL={outside.helpdesk.url} HANDBOOK_URL={outside.handbook.url} CMDB_URL={outside.cmdb.url}
docs/getting-started.md goes on from here; docs/tools.md, docs/agents.md and docs/flows.md with tools, agents and flows.
Ctrl-C stops everything; the state stays in .local/.
""",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
