"""The whole road from raw web pages to an aligned chat model. Read it from top to bottom."""

from flows.config import PipelineConfig
from flows.settled import settled
from tasks import pins
from tasks.curation import clean, decontaminate, dedup, dialogues, extract, shard, tokenizer
from tasks.facts import stage_facts
from tasks.sources import listed
from tasks.stage import Output
from tasks.training import base, evaluate, instruct, pairs, prefer, pretrain, publish, reinforce, reward


def road(config: PipelineConfig) -> Output:
    """Every stage in order. Prefect runs it as the flow `pipeline`; `tokenmill plan` calls it to look stages up."""
    # What the store adds: block lists of takedowns, pins of an increment.
    config = settled(config)
    earlier = pins.documents(config.increment)

    # Conversations come first: what the models are judged by must not be in the documents they learn from.
    chat_sources = listed("sources-chat", config.dialogues.sources)
    evaluations = listed("sources-evaluations", config.decontaminate.evaluations)
    chats = dialogues(config.dialogues.against(config.decontaminate), sources=chat_sources, evaluations=evaluations)

    # Raw pages -> unique, clean documents.
    web_sources = listed("sources-web", config.extract.sources)
    pages = extract(config.extract, sources=web_sources)
    quality = config.clean.quality
    positive = listed("sources-positive", quality.positive if quality else [])
    negative = listed("sources-negative", quality.negative if quality else [])
    kept = clean(config.clean, documents=pages, positive=positive, negative=negative)
    indexes = listed("sources-indexes", config.dedup.indexes)
    blocked = listed("sources-blocked", config.dedup.blocked)
    unique = dedup(config.dedup, documents=kept, indexes=indexes, blocked=blocked)
    documents = decontaminate(config.decontaminate, documents=unique, dialogues=chats, evaluations=evaluations)

    # Documents -> ONE set of shards that serves every sequence length.
    bpe = pins.tokenizer(config.increment) or tokenizer(config.tokenizer, documents=documents)
    shards = shard(config.shard, documents=[*earlier, documents], tokenizer=bpe)
    data = {"shards": shards, "dialogues": chats}

    # Growing lengths, each phase from the model, optimizer and place in the data where the last one stopped.
    *names, last = config.pretrain.names()
    phase, scores = None, list[Output]()
    if config.base.path:
        start = base(config.base, tokenizer=bpe)  # somebody's model in place of ours
    else:
        for index, name in enumerate(names):
            phase = pretrain(config.pretrain.run_of(index), name=name, shards=shards, tokenizer=bpe, previous=phase)
            scores.append(evaluate(config.evaluate, name=f"evaluate-{name}", model=phase, **data, pairs=None))
        start = pretrain(config.pretrain.run_of(len(names)), name=last, shards=shards, tokenizer=bpe, previous=phase)

    # Base model -> chat model. Preference pairs come from the model itself, judged by verifiers.
    sft = instruct(config.instruct, model=start, dialogues=chats)
    judged = pairs(config.pairs, model=sft, dialogues=chats)
    judge = reward(config.reward, model=sft, pairs=judged)
    dpo = prefer(config.prefer, model=sft, pairs=judged, reward=judge)
    grpo = reinforce(config.reinforce, model=dpo, dialogues=chats, reward=judge)

    # Side by side, on data that no stage has trained on.
    data |= {"pairs": judged, "reward": judge}
    scores.append(evaluate(config.evaluate, name="evaluate-base", model=start, **data))
    rival = evaluate(config.evaluate, name="evaluate-sft", model=sft, **data)  # whose answers the others must beat
    scores.append(rival)
    for name, model in {"dpo": dpo, "grpo": grpo}.items():
        scores.append(evaluate(config.evaluate, name=f"evaluate-{name}", model=model, **data, sft=rival))
    return publish(config.publish.of(stage_facts()), model=grpo, evaluations=scores)
