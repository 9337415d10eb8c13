"""Makes a stage's artifact: holds an attempt, runs the function in a child process, publishes what it wrote."""

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from data_curation.files import File, join, listing, sha256_file
from data_curation.place import Place, parts_of
from data_curation.settings import Settings, StageError
from tasks.artifact import Input, Manifest, commit, listings_of, machine, packages, uris_of
from tasks.claim import Claim, hold
from tasks.lease import Lease
from tasks.process import Outcome, Work, run_child
from tasks.progress import Display
from tasks.run import Run
from tasks.show import Live, say
from tasks.store import Found
from tasks.why import Decision, code_hash

if TYPE_CHECKING:
    from tasks.stage import Stage

log = logging.getLogger("tokenmill")


def make(
    run: Run, stage: "Stage", config: Settings, name: str, inputs: dict[str, Input], decision: Decision
) -> tuple[Found, bool]:
    """The stage's artifact, and whether it was made here; it is published whole, or the attempt is given up."""
    lease = Lease.new(run.id, code_hash(stage.function))
    any_code = run.asked(run.accept, stage.word, name)
    fresh = run.asked(run.refresh, stage.word, name)
    claim = hold(run.store, stage.word, decision.key, lease, say, fresh=fresh, any_code=any_code)
    if isinstance(claim, Found):
        return claim, False  # another run has made it while this one waited
    try:
        place = Place(claim.home, Path(), run.resources(stage.word), name)
        _adopt(name, claim, place)
        hours = run.settings.hours.get(stage.word)
        work = Work(name, stage.function, config, inputs, claim.home, place.resources, hours and hours * 3600)
        live = Live(name, decision.why)
        with Display(name, live.say, live.page) as display:
            outcome = run_child(work, display.show)
        manifest = _manifest(run, stage, config, inputs, decision, claim, outcome)
        claim.publish(manifest)
    except BaseException:
        claim.release()
        raise
    try:
        for piece in place.pieces():
            if all(part.startswith("work/") for part in piece.files):
                place.drop(piece)  # a checkpoint: the manifest stands, nobody will resume from it
    except Exception as error:  # it only takes room
        log.warning("%s: its checkpoints could not be removed: %s", name, error)
    return Found(manifest, claim.home), True


def _adopt(name: str, claim: Claim, place: Place) -> None:
    for earlier in claim.earlier:
        if adopted := place.adopt(earlier):
            say(f"{name}: goes on with {len(adopted)} complete pieces of attempt {earlier.rsplit('/', 1)[-1]}")
    if claim.other_code:
        numbers = ", ".join(map(str, claim.other_code))
        say(
            f"{name}: attempt {numbers} was made by other code and is left alone: --accept {name} goes on with it",
            logging.WARNING,
        )


def _manifest(
    run: Run,
    stage: "Stage",
    config: Settings,
    inputs: dict[str, Input],
    decision: Decision,
    claim: Claim,
    outcome: Outcome,
) -> Manifest:
    parts = parts_of(Place(claim.home, Path()).pieces())
    if not parts:
        raise StageError(f"{stage.word}: it ended without any output")
    if listings := listings_of(inputs):
        Place(claim.home, Path()).record("sources", listings)
    records = join(claim.home, "records")
    return Manifest(
        word=stage.word,
        key=decision.key,
        attempt=claim.attempt,
        version=stage.version,
        config=config.identity(),
        inputs=decision.inputs,
        sources=uris_of(inputs),
        parts=parts,
        records=[File(path, size, sha256_file(join(records, path))) for path, size in listing(records).items()],
        counts=outcome.counts,
        seconds=round(outcome.seconds, 3),
        peak_memory=outcome.peak_memory,
        code=code_hash(stage.function),
        commit=commit(),
        packages=packages(),
        machine=machine() | {"device": outcome.device},
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        run=run.id,
    )
