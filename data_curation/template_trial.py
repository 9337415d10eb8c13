"""Whether a chat template comes to an end: rendered once in a process of its own, which a limit of CPU time ends.

The sandbox refuses one long range, not two nested ones, and no signal or thread ends what hangs inside one operation
(`9 ** (9 ** 9)`), so only another process can, from any thread. It loads jinja2 alone: that takes 0.2 s.
"""

import json
import signal
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

CPU_SECONDS = 3
"""CPU time of the trial, not hours, so that a busy machine ends no good template; those take hundredths of it."""
MEMORY = 2 * 2**30
"""Bytes of address space: a template that writes without end must not fill the machine before its time is over."""
_FULL = 3  # exit code: the memory was not enough


@lru_cache(maxsize=16)
def ends(template: str, names: tuple[tuple[str, str], ...]) -> bool:
    """Whether it renders two short conversations within these limits; `names` are the special tokens by name.

    One that fails has ended, too: how it fails, its real rendering says.
    """
    chat = [{"role": "user", "content": "Say one."}, {"role": "assistant", "content": "One."}]
    conversations = [chat, [{"role": "system", "content": "Be kind."}, *chat, chat[0]]]
    asked = json.dumps({"template": template, "names": dict(names), "conversations": conversations})
    done = subprocess.run(
        [sys.executable, "-I", str(Path(__file__))], input=asked.encode(), capture_output=True, check=False
    )
    return done.returncode not in (-signal.SIGXCPU, -signal.SIGKILL, _FULL)


def _main() -> None:
    import resource

    # Before anything of the template is read: its parsing may take long, too. The kernel kills at the hard limit.
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    asked = json.load(sys.stdin)
    template = _compiled(asked["template"])
    for messages in asked["conversations"]:
        for prompt in (False, True):
            try:
                template.render(messages=messages, add_generation_prompt=prompt, **asked["names"])
            except MemoryError:
                sys.exit(_FULL)
            except Exception:  # such as a template that wants no system prompt: the next conversation may still hang
                continue


def _compiled(text: str) -> Any:
    """The template in a sandbox like that of transformers, whose import alone would take seconds."""
    from datetime import datetime

    import jinja2.ext
    import jinja2.nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        """`{% generation %}`: what it encloses is rendered as it is."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            return jinja2.nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    cast(dict[str, Any], environment.globals).update(
        raise_exception=raise_exception, strftime_now=lambda form: datetime.now().strftime(form)
    )
    return environment.from_string(text)


if __name__ == "__main__":
    _main()
