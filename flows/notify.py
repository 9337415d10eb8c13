"""Automations of a Prefect server: who is told how runs end, and that dead runs are marked crashed.

python -m flows.notify [TYPE/NAME]...       (against PREFECT_API_URL; `tokenmill ui` calls it without names)
"""

import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.automations import AutomationCore, EventTrigger, Posture
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, SendNotification
from prefect.exceptions import ObjectNotFound

from data_curation.settings import ConfigError

DEAD_SECONDS = 150
"""A run that has not said for so long that it lives has died: five heartbeats (HEARTBEAT in flows/server.py)."""
FLOWS = ["pipeline", "stage", "increment"]
"""Ours: other flows of the same server may say more seldom that they live."""
ENDS = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed", "Paused", "Suspended")}
RUNS: dict[str, str | list[str]] = {"prefect.resource.id": "prefect.flow-run.*"}
TEXT = (
    "{{ flow_run.name }} ({{ flow.name }}) ended as {{ flow_run.state.name }}: {{ flow_run.state.message }}\n"
    "{{ flow_run|ui_url }}"
)
TOLD = {
    "Tokenmill: a run failed": ("Failed", "Crashed", "TimedOut"),
    "Tokenmill: a run succeeded": ("Completed",),
}
"""Name of an automation -> the states of which it tells."""


def automate(blocks: Sequence[str] | None) -> None:
    """Make the automations, or bring them to this state; notifications stay as they are if `blocks` is none."""
    with get_client(sync_client=True) as client:
        _put(client, _dead_runs())
        if blocks is None:
            return
        actions = [SendNotification(block_document_id=_block(client, name), subject="", body=TEXT) for name in blocks]
        for name, states in TOLD.items():
            told = [action.model_copy(update={"subject": name}) for action in actions]
            _put(client, _at_end(name, states, told), keep=bool(told))


def _dead_runs() -> AutomationCore:
    """`kill -9` of a run that no worker watches, or a lost machine, would leave it Running for ever."""
    beat = "prefect.flow-run.heartbeat"
    return AutomationCore(
        name="Tokenmill: dead runs are crashed",
        description="A run that stopped to say that it lives is marked crashed, so that nobody waits for it.",
        trigger=EventTrigger(
            after={beat, "prefect.flow-run.Running"},  # it may be killed before its first beat has arrived
            expect={beat, *ENDS},
            match=RUNS,
            match_related={"prefect.resource.role": "flow", "prefect.resource.name": FLOWS},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=DEAD_SECONDS),
        ),
        actions=[
            ChangeFlowRunState(
                name="Crashed", state=StateType.CRASHED, message="It stopped to say that it lives: killed?", force=False
            )
        ],
    )


def _at_end(name: str, states: Sequence[str], told: list[SendNotification]) -> AutomationCore:
    return AutomationCore(
        name=name,
        description="Made by `tokenmill notify`, which also changes who is told.",
        trigger=EventTrigger(
            expect={f"prefect.flow-run.{state}" for state in states},
            match=RUNS,
            match_related={"prefect.resource.role": "tag", "prefect.resource.id": "prefect.tag.tokenmill"},
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=list(told),
    )


def _put(client: SyncPrefectClient, automation: AutomationCore, keep: bool = True) -> None:
    """One automation of that name, as given, or none; an equal one is left alone, with its owner's pause of it.

    Another one is replaced, not updated: after an update the server has told of every end twice.
    """
    there = client.read_automations_by_name(automation.name)
    equal = [old for old in there if keep and _meaning(old) == _meaning(automation)][:1]
    for old in there:
        if old not in equal:
            client.delete_automation(old.id)
    if keep and not equal:
        client.create_automation(automation)


def _meaning(automation: AutomationCore) -> Any:
    """What it does, as plain data: without ids, empty fields and the order of sets."""
    trigger = automation.trigger.model_dump(mode="json", exclude={"id"})
    plain = {name: sorted(value) if isinstance(value, list) else value for name, value in trigger.items() if value}
    return plain, [action.model_dump(mode="json") for action in automation.actions]


def _block(client: SyncPrefectClient, name: str) -> UUID:
    """Id of a notification block; its secrets are kept encrypted by the server and never pass through here."""
    kind, _, called = name.partition("/")
    try:
        return client.read_block_document_by_name(called, kind).id
    except ObjectNotFound:
        raise ConfigError(
            f"{name}: the server has no such block: make it on the page Blocks (Slack Webhook, Custom Webhook, "
            "Sendgrid Email, ...) and name it as TYPE/NAME, such as slack-webhook/team"
        ) from None


if __name__ == "__main__":
    automate(sys.argv[1:] or None)
