"""A rendered 2411 prompt gets the ids of mistral_common, from either tokenizer file."""

import random

import pytest
from mistral_common.protocol.instruct.messages import AssistantMessage, SystemMessage, UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from strings import CONTROLS, strings

CONVERSATIONS = 300


def conversations():
    r = random.Random(5)
    # The template prints a control string as it is, mistral_common as text: no such strings here.
    clean = [s.strip("\u2581 ") for s in strings(6000, seed=17)
             if not any(c in s for c in CONTROLS if c.startswith(("[", "<s", "</s", "<unk")))]
    texts = iter([s for s in clean if s.strip()])
    for _ in range(CONVERSATIONS):
        turns = [(next(texts), next(texts)) for _ in range(r.randrange(3))]
        yield next(texts), turns, next(texts)


@pytest.mark.parametrize("source", ["json", "model"])
def test_rendered_prompts_equal_mistral_common(source, serve, v7_json, v7_model_folder):
    service = serve(v7_model_folder if source == "model" else v7_json["plain"])
    reference = MistralTokenizer.v7()
    prompts, expected = [], []
    for system, turns, last in conversations():
        messages = [SystemMessage(content=system)]
        prompt = f"<s>[SYSTEM_PROMPT] {system}[/SYSTEM_PROMPT]"
        for user, assistant in turns:
            messages += [UserMessage(content=user), AssistantMessage(content=assistant)]
            prompt += f"[INST] {user}[/INST] {assistant}</s>"
        messages.append(UserMessage(content=last))
        prompts.append(prompt + f"[INST] {last}[/INST]")
        expected.append(reference.encode_chat_completion(
            ChatCompletionRequest(messages=messages)).tokens)
    assert service.encode(prompts) == expected
    assert len(prompts) == CONVERSATIONS
