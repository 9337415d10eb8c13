"""The training stages as tasks: one line per stage."""

from tasks.stage import stage

SPLITS = ("train", "dev", "test")

pretrain = stage(
    "training.pretrain:pretrain",
    version=4,
    takes={"shards": ("shards", "heldout"), "previous": ("model", "state")},
)
base = stage("training.base:base", version=1)
instruct = stage("training.instruct:instruct", version=4, takes={"dialogues": SPLITS})
pairs = stage(
    "training.pairs:pairs",
    version=4,
    takes={"dialogues": (*SPLITS, *(f"{split}-preferences" for split in SPLITS))},
)
reward = stage("training.reward:reward", version=3, takes={"pairs": ("train", "test", "prompts")})
prefer = stage(
    "training.prefer:prefer",
    version=3,
    takes={"pairs": ("train", "test", "prompts"), "reward": ("model", "verdict")},
)
reinforce = stage(
    "training.reinforce:reinforce",
    version=5,
    takes={"dialogues": SPLITS, "reward": ("model", "verdict")},
)
evaluate = stage(
    "training.evaluate:evaluate",
    version=4,
    takes={
        "shards": ("heldout",),
        "dialogues": ("test",),
        "pairs": ("test",),
        "reward": ("model", "verdict"),
        "sft": ("answers",),
    },
)
publish = stage("training.publish:publish", version=4, takes={"evaluations": ("scores",)})
