"""All steps in their order."""

from __future__ import annotations

from pathlib import Path

from infra.local.stack import LocalStack
from infra.walkthrough.agents import AgentSteps
from infra.walkthrough.flows import FlowSteps
from infra.walkthrough.outside import Outside
from infra.walkthrough.plugins import PluginSteps
from infra.walkthrough.steps import Plan, Step, walk
from infra.walkthrough.tenant import Tenant
from infra.walkthrough.tools import ToolSteps


class Walkthrough:
    """Every step in its order, on a running stack that may call `outside`."""

    def __init__(self, stack: LocalStack, outside: Outside, packages: Path) -> None:
        self.steps: list[Step] = []
        self.tenant = Tenant(stack)
        plugins = PluginSteps(stack, self.tenant, outside.webhook, packages)
        tools = ToolSteps(self.tenant, outside.helpdesk, outside.handbook)
        agents = AgentSteps(self.tenant, outside.cmdb)
        flows = FlowSteps(self.tenant, tools)
        self.plan: Plan = (
            ("create an app of its own, with a credential", self.tenant.create),
            *plugins.plan(),
            *tools.plan(),
            *agents.plan(),
            *flows.plan(),
            *plugins.end(),
        )

    def run(self) -> bool:
        """Walk until a step fails; True where every step held."""
        try:
            return walk(self.plan, self.steps)
        finally:
            self.tenant.close()
