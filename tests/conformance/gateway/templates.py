"""The templates: the model's own, those inside installed packages, ours that use every feature of the
environment, and a folder of others where it lies."""

import ast
import os
from importlib import resources
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FOLDER = Path(os.environ.get("BEHEMOTH_TEMPLATES", ROOT.parent / "shared/data/templates"))

# Each is one feature of the environment that a template on the hub may lean on.
OWN = {
    "loop_controls": (
        "{% for m in messages %}{% if m.role == 'tool' %}{% continue %}{% endif %}"
        "{% if loop.index0 > 4 %}{% break %}{% endif %}[INST]{{ m['content'] }}[/INST]{% endfor %}"),
    "white_space": (
        "{{ bos_token }}\n{% for m in messages %}\n    {% if m.role == 'user' %}\n"
        "[INST] {{ m.content | trim }} [/INST]\n    {%- else -%}\n  {{ m.content }}  \n"
        "    {%+ endif %}\n{% endfor %}\n\n"),
    "generation": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}"
        "{% set inner = m.content %}{{ inner }}{{ eos_token }}{% endgeneration %}"
        "{{ inner is defined }}{% else %}[INST]{{ m.content }}[/INST]{% endif %}{% endfor %}"),
    "namespace_and_macro": (
        "{% macro turn(m, i) %}[INST] {{ i }}: {{ m.content }}[/INST]{% endmacro %}"
        "{% set ns = namespace(n=0, all='') %}{% for m in messages %}{% set ns.n = ns.n + m.content|length %}"
        "{% set ns.all = ns.all ~ m.content[:3] %}{{ turn(m, loop.index) }}{% endfor %}"
        "</s>{{ ns.n }} {{ ns.all }} {{ messages|length }}"),
    "json": (
        "[AVAILABLE_TOOLS]{{ messages | tojson }}[/AVAILABLE_TOOLS]"
        "{{ messages[0] | tojson(indent=2) }}{{ messages[-1] | tojson(ensure_ascii=True, sort_keys=True) }}"
        "{{ messages[0].content | tojson(separators=(',', ':')) }}"),
    "undefined": (
        "{{ tools is none }}{{ documents is none }}{{ pad_token is defined }}{{ unk_token }}{{ no_such }}"
        "{{ enable_thinking is defined }}{% for m in messages %}{{ m.name }}{{ m['content'] }}{% endfor %}"),
    "undefined_is_used": "{{ messages[0].content }}{{ no_such.field }}",
    "wrong_type": "{{ messages[0].content + messages|length }}",
    "sandbox": "{{ messages[0].content }}{{ messages.append({}) }}",
    "sandbox_attribute": "{{ messages[0].content.__class__.__mro__ }}",
    "date": "{{ strftime_now('%Y-%m') }}{% for m in messages %}[INST]{{ m.content }}[/INST]{% endfor %}",
    "thinks": (  # looks into messages
        "{% for m in messages %}{% if m.role == 'assistant' and '</think>' in m.content %}"
        "{{ m.content.split('</think>')[-1].lstrip('\\n') }}</s>{% else %}[INST]{{ m.content }}[/INST]"
        "{% endif %}{% endfor %}{% if add_generation_prompt %} <think>\n{% endif %}"),
    "rewrites": (
        "{% for m in messages %}[INST]{{ m.content | replace('x', 'yy') | upper }}[/INST]{% endfor %}"),
    "string_methods": (
        "{% for m in messages %}{% if m.content.startswith('<think>') %}T{% endif %}"
        "{% set parts = m.content.split('\n') %}[INST]{{ parts | join('|') }}{{ m.content.strip() == '' }}"
        "{{ m.content[1:-1] }}{{ '%s/%d' % (m.role, loop.index) }}{{ m.role.capitalize() }}[/INST]"
        "{% endfor %}"),
    "refuses_order": (
        "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
        "{% endif %}[INST] {{ m['content'] }} [/INST]{% endfor %}"),
    "drops_the_end": "{% for m in messages[:-1] %}[INST]{{ m.content }}[/INST]{% endfor %}",
    "no_c_o_n_t_e_n_t": "{% for m in messages %}[INST]{{ m.values() | list | last }}[/INST]{% endfor %}",
    "built_tokens": "{% for m in messages %}{{ '[' + 'INST' + ']' }}{{ m.content }}{{ '[/' ~ 'INST]' }}{% endfor %}",
    "escapes": "{% for m in messages %}[INST]{{ m.content | e }}{{ m.content | string | safe }}[/INST]{% endfor %}",
}
# Templates that change messages in ways no disguise survives: a message that spells a control token
# is refused there.
REWRITES = {"rewrites", "escapes", "string_methods", "json"}


def packaged():
    """String constants of transformers that are chat templates."""
    found = {}
    for module in ("llama4/processing_llama4", "qwen2_audio/processing_qwen2_audio",
                   "smolvlm/processing_smolvlm"):
        source = resources.files("transformers") / f"models/{module}.py"
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and "{%" in text and "messages" in text:
                found[module.split("/")[0]] = text
    assert len(found) == 3
    return found


def always():
    tiny = (ROOT / "tests/models/tiny/chat_template.jinja").read_text(encoding="utf-8")
    return {"tiny": tiny, **packaged(), **OWN}


def extra():
    """Those of the folder; one entry without a template if it is not there, for the skip's reason."""
    files = sorted(FOLDER.glob("*.jinja"))
    return {f.stem: f.read_text(encoding="utf-8") for f in files} or {"none": None}


def need(template):
    if template is None:
        pytest.skip(f"no chat templates of other families at {FOLDER.name}/ beside the clone")
    return template
