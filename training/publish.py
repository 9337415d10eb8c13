"""The last model as a Hugging Face folder with a model card, checked by loading it and talking to it."""

import json
from pathlib import Path

from pydantic import Field

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.place import Place
from data_curation.settings import Settings
from training.card import Scores, model_card
from training.measures import gate
from training.provenance import StageFacts


class PublishConfig(Settings):
    """What the model card says, and how the finished model is tried."""

    title: str = "A Tokenmill model"
    """Heading of the model card."""
    license: str = "apache-2.0"
    """The weights' licence, by its Hugging Face identifier; the data's own licences are yours to check."""
    data_licenses: dict[str, str] = {}
    """Licences of sources by their names, in words, for the card's table of data."""
    languages: list[str] = ["en"]
    """ISO 639-1 codes for the card's header."""
    notes: str = ""
    """Markdown added to the card: data, intended use, limits."""
    prompts: list[str] = ["Hello!", "What is 2 plus 3?", "What can you do?"]
    """Questions that the finished model must answer and stop; none: it is not asked, and there is no gate."""
    max_new_tokens: int = Field(default=128, gt=0)
    """Tokens within which an answer must stop."""

    def of(self, stages: dict[str, StageFacts]) -> "PublishRun":
        """What the card depends on: the stages' facts are in it, so they are part of the key."""
        return PublishRun(**{name: getattr(self, name) for name in PublishConfig.model_fields}, stages=stages)


class PublishRun(PublishConfig):
    """The settings with what the stages of the road say of themselves."""

    stages: dict[str, StageFacts] = {}
    """The stages before this one in the order of the road, by name."""


def publish(config: PublishRun, model: Artifact, evaluations: list[Artifact], place: Place) -> Counts:
    """Part `model`: the model's folder, unchanged, and README.md; gates say whether it answers and stops."""
    finished = place.done("model")
    if finished is not None:
        return finished.counts
    folder = model.folder("model", place.scratch)
    scores: Scores = {
        artifact.name.removeprefix("evaluate-"): artifact.read_json("scores", "scores.json") for artifact in evaluations
    }
    counts = _try(config, folder, place)
    card = model_card(config, json.loads((folder / "config.json").read_text()), scores, counts.gates)
    counts.samples.append({"title": "README.md", "text": card})
    with place.piece("model") as piece:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            if path.name != "README.md":
                with piece.write("model", path.relative_to(folder).as_posix()) as out:
                    out.write(path.read_bytes())
        with piece.write("model", "README.md") as out:
            out.write(card.encode())
        counts.made = {"files": len(piece.piece.files["model"])}
        piece.piece.counts = counts
    return counts


def _try(config: PublishRun, folder: Path, place: Place) -> Counts:
    """Load the folder as a user would, check template and stop token, and ask it the configured questions."""
    from training.chat import check_contract
    from training.measures import load_policy
    from training.model import settle

    device = settle(place)
    net, tokenizer = load_policy(folder, place)
    digest = check_contract(tokenizer, folder)
    counts, stopped = Counts(), 0
    for prompt in config.prompts:
        asked = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(device)
        made = net.generate(**asked, max_new_tokens=config.max_new_tokens, do_sample=False)[0]
        answer = made[asked["input_ids"].shape[1] :].tolist()
        stopped += tokenizer.eos_token_id in answer
        counts.samples.append({"title": prompt, "text": tokenizer.decode(answer, skip_special_tokens=True)})
    counts.metrics["parameters"] = {"value": net.num_parameters(), "n": None, "standard_error": None}
    if asked_for := len(config.prompts):
        share = {"value": stopped / asked_for, "n": asked_for, "standard_error": None}
        counts.metrics["answers_that_stop"] = share
        counts.gates.append(gate("answers that stop", share, 1.0))
    place.record("contract", {"template": digest, "eos": tokenizer.eos_token})
    return counts
