"""A stage of the road: a pure function by name, its version and what it reads; called, it is run, found or planned.

    dedup = stage("data_curation.dedup:dedup", version=1)
    unique = dedup(config.dedup, documents=kept)

In a plan the same call only looks the stage up, so the flow function that runs the road also plans it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Union

from data_curation.artifact import Artifact
from data_curation.settings import Settings
from tasks.artifact import Input
from tasks.run import RUN, Planned, Run, StageRecord
from tasks.why import Decision, code_warning, costly_remake, decide, outputs, plan_unknown

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

Output = Union["State[Artifact]", Artifact, Planned]
"""What a stage hands to the next: a Prefect state (which draws the arrow) in a run, the lookup in a plan."""


class Reached(Exception):  # noqa: N818 - it ends a run that was asked to end here; nothing failed
    """The last stage that was asked for is done."""


@dataclass(frozen=True)
class Stage:
    """A stage of the road. `takes` says which parts of an argument it reads; by default the one of its name."""

    function: str
    version: int
    takes: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])

    @property
    def word(self) -> str:
        """The stage's one word: YAML section, function, folder in the store."""
        return self.function.split(":")[1]

    def __call__(self, config: Settings, /, name: str = "", **inputs: Output | Sequence[Output] | None) -> Output:
        """Run, find or plan the stage; `name` adds a phase or model to the word (`pretrain-8k`)."""
        name = name or self.word
        run = RUN.get()
        if run.mode == "plan":
            return self._plan(run, config, name, inputs)
        from tasks.task import stage_task  # here, because a plan needs no Prefect, which takes a second to import

        output = stage_task(run, name)(self, config, name, inputs)
        if name == run.last:
            raise Reached(name)
        return output

    def narrow(self, inputs: Mapping[str, Any]) -> dict[str, Input]:
        """The inputs, seen through the declared parts only."""
        narrowed: dict[str, Input] = {}
        for argument, value in inputs.items():
            parts = self.takes.get(argument, (argument,))
            if isinstance(value, Artifact):
                narrowed[argument] = value.only(parts)
            elif value is None:
                narrowed[argument] = None
            else:
                narrowed[argument] = [item.only(parts) for item in value]
        return narrowed

    def _plan(self, run: Run, config: Settings, name: str, inputs: Mapping[str, Any]) -> Artifact | Planned:
        items = [item for value in inputs.values() for item in (value if isinstance(value, list) else [value])]
        waits = [item for item in items if isinstance(item, Planned)]
        if waits:
            sure = [item.name for item in waits]
            record = plan_unknown(run, self.word, name, self.version, config.identity(), sure)
        else:
            narrowed = self.narrow(inputs)
            decision = decide(run, self.word, name, self.version, config.identity(), narrowed)
            record = _record(self, name, decision, run)
        run.stages.append(record)
        return outputs(record)


def stage(function: str, version: int, takes: Mapping[str, tuple[str, ...]] | None = None) -> Stage:
    """Define a stage once: `module:function`; raise `version` when the meaning of its output changes."""
    return Stage(function, version, takes or {})


def _record(stage: Stage, name: str, decision: Decision, run: Run) -> StageRecord:
    """The planned state of a stage whose inputs are all known."""
    manifest, state = decision.found.manifest, "run" if decision.why else "cached"
    record = StageRecord(name, stage.word, state, decision.why, decision.key)
    if manifest is not None:
        record.manifest, record.attempt, record.uri = manifest, manifest.attempt, decision.found.home
        if state == "cached":
            record.digest = manifest.digest
            warning = code_warning(run, stage.word, name, stage.function, decision.found)
        else:
            warning = costly_remake(run, stage.word, name, decision.found)
        record.warnings += [warning] if warning else []
    return record
