"""The curation stages as tasks: one line per stage."""

from tasks.stage import stage

extract = stage("data_curation.extract:extract", version=4, takes={"sources": ("files",)})
clean = stage("data_curation.clean:clean", version=3, takes={"positive": ("files",), "negative": ("files",)})
dedup = stage("data_curation.dedup:dedup", version=2, takes={"indexes": ("files",), "blocked": ("files",)})
decontaminate = stage(
    "data_curation.decontaminate:decontaminate",
    version=2,
    takes={"dialogues": ("dev", "test", "dev-preferences", "test-preferences"), "evaluations": ("files",)},
)
tokenizer = stage("data_curation.tokenizer:tokenizer", version=2)
shard = stage("data_curation.shard:shard", version=2)
dialogues = stage(
    "data_curation.dialogues:dialogues", version=3, takes={"sources": ("files",), "evaluations": ("files",)}
)
