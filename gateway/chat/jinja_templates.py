"""Chat templates in Hugging Face's environment. Compiled into behemoth-gateway and run there by the
embedded interpreter (jinja_interpreter.cc); reads and runs on its own as well.

The options, names and defaults are those that templates on the hub are written against:
transformers, utils/chat_template_utils.py. What is ours: one clock per request, bounded numbers,
bounded output.
"""

import datetime
import json

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.nodes
import jinja2.sandbox

# What transformers appends to the final message to find its end again. The space tells whether the
# template trims.
FINAL_MARK = "CONTINUE_FINAL_MESSAGE_TAG "

# Powers and products of whole numbers are the one operation whose time no memory limit bounds.
LARGEST_NUMBER_BITS = 1 << 16


class Refused(Exception):
    """The template or its use is at fault; the message is for the client."""


class Interrupted(BaseException):
    """Over its time. Not an Exception: no handler on the way may keep it."""


class Generation(jinja2.ext.Extension):
    """{% generation %}...{% endgeneration %} marks what an assistant wrote, for training. Here it
    only has to keep its scope: a block with variables of its own."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_print"), [], [], body).set_lineno(line)

    def _print(self, caller):
        return caller()


class Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("*", "**"))

    def call_binop(self, context, operator, left, right):
        if isinstance(left, int) and isinstance(right, int):
            if operator == "*":
                bits = left.bit_length() + right.bit_length()
            else:
                bits = left.bit_length() * max(right, 0)
            if bits > LARGEST_NUMBER_BITS:
                raise Refused("The chat template computes too large a number.")
        return super().call_binop(context, operator, left, right)


def refuse(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


class Template:
    """One compiled template. `special_tokens` are names that it may print, e.g. bos_token."""

    def __init__(self, source, special_tokens):
        self._environment = Environment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[Generation, jinja2.ext.loopcontrols],
        )
        self._environment.filters["tojson"] = tojson
        self._environment.globals["raise_exception"] = refuse
        self._environment.globals["strftime_now"] = self._strftime
        self._now = None
        self._source = source
        self._special_tokens = special_tokens
        try:
            self._template = self._environment.from_string(source)
            tree = self._environment.parse(source)
        except jinja2.exceptions.TemplateSyntaxError as error:
            raise Refused(f"line {error.lineno}: {error.message}") from None
        strings = (node.value for node in tree.find_all(jinja2.nodes.Const))
        self.constants = sorted({text for text in strings if isinstance(text, str)})
        self.takes_tools = "tools" in jinja2.meta.find_undeclared_variables(tree)

    def new_request(self):
        """All renders of a request see the same time."""
        self._now = datetime.datetime.now()

    def render(self, messages, tools, variables, add_generation_prompt, continue_final_message,
               limit):
        """The prompt as transformers' apply_chat_template(tokenize=False) gives it. Changes the
        last message. Refuses more than `limit` characters."""
        if continue_final_message:
            final = messages[-1]["content"]
            if "content" not in self._source:
                raise Refused(
                    "continue_final_message is set but the chat template has no field content."
                )
            messages[-1]["content"] = final + FINAL_MARK
        pieces, length = [], 0
        for piece in self._template.generate(
            **{
                "messages": messages,
                "tools": tools,
                "documents": None,
                "add_generation_prompt": add_generation_prompt,
                **self._special_tokens,
                **variables,
            }
        ):
            length += len(piece)
            if length > limit:
                raise Refused("The chat template prints more than the limit of a prompt.")
            pieces.append(piece)
        prompt = "".join(pieces)
        return cut_after_final(prompt, final) if continue_final_message else prompt

    def _strftime(self, format):
        return self._now.strftime(format)


def cut_after_final(prompt, final):
    """Everything up to the end of the final message."""
    mark = FINAL_MARK.strip()
    if final.strip() not in prompt or mark not in prompt:
        raise Refused(
            "continue_final_message is set but the final message does not appear in the chat after "
            "applying the chat template."
        )
    end = prompt.rindex(mark)
    if prompt.startswith(FINAL_MARK, end):
        return prompt[:end]
    # The template trims messages, so the space before the mark is the client's own and goes too.
    return prompt[:end].rstrip()
