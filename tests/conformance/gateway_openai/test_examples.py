"""README's examples run as they are written, and OpenAI's client for Node reads what ours for Python
does. Nothing but the address is put in its place.

The Node client comes from the npm registry; without Node or the registry its tests are skipped and
say so.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
NODE_CLIENT = "openai@6.10.0"


def blocks(language):
    text = (ROOT / "README.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def here(example, gateway):
    placed = re.sub(r"(http://)?localhost:8000", gateway, example)
    assert placed != example, "an example without the server's address"
    return placed


def test_the_python_examples(gateway):
    examples = [block for block in blocks("python") if "openai" in block]
    assert examples
    for example in examples:
        done = subprocess.run([sys.executable, "-c", here(example, gateway)], capture_output=True,
                              text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.strip()) > 20, done.stdout


def test_the_curl_examples(gateway):
    examples = [block for block in blocks("bash") if block.startswith("curl")]
    assert examples
    for example in examples:
        done = subprocess.run(["bash", "-ec", here(example, gateway)], capture_output=True, text=True,
                              timeout=120)
        assert done.returncode == 0, done.stderr
        [choice] = json.loads(done.stdout)["choices"]
        assert choice["message"]["content"] or choice["message"]["reasoning_content"], choice


NODE = """
import OpenAI from "openai";
const client = new OpenAI({ baseURL: process.argv[2] + "/v1", apiKey: "-", maxRetries: 0 });
const request = {
  model: (await client.models.list()).data[0].id, seed: 5, temperature: 1, max_tokens: 60,
  thinking: { preset: "creative" }, stop: ["</s>"],
  messages: [{ role: "user", content: "Who art thou — naïve 🙂?" }],
};
const whole = await client.chat.completions.create(request);
let thought = "", content = "", finish = null, usage = null;
const stream = await client.chat.completions.create({
  ...request, stream: true, stream_options: { include_usage: true } });
for await (const chunk of stream) {
  usage = chunk.usage ?? usage;
  const choice = chunk.choices[0];
  if (!choice) continue;
  thought += choice.delta.reasoning_content ?? "";
  content += choice.delta.content ?? "";
  finish = choice.finish_reason ?? finish;
}
let refused = null;
try {
  await client.chat.completions.create({ ...request, temperature: -1 });
} catch (error) {
  refused = { status: error.status, param: error.param, kind: error.constructor.name };
}
const text = await client.completions.create({
  model: request.model, prompt: "Once", max_tokens: 8, seed: 1, logprobs: 2, echo: true });
console.log(JSON.stringify({ whole: whole.choices[0], usage_whole: whole.usage, thought, content,
                             finish, usage, refused, text: text.choices[0] }));
"""


@pytest.fixture(scope="session")
def node(tmp_path_factory):
    """A folder in which `import "openai"` works."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("no Node on this machine")
    folder = tmp_path_factory.mktemp("node")
    done = subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix",
                           folder, NODE_CLIENT], capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        pytest.skip(f"{NODE_CLIENT} cannot be had: {done.stderr[-200:]}")
    (folder / "ask.mjs").write_text(NODE)
    return folder


def test_openais_client_for_node(node, gateway):
    done = subprocess.run(["node", node / "ask.mjs", gateway], capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    message = said["whole"]["message"]
    assert message["reasoning_content"] and said["thought"] == message["reasoning_content"]
    assert said["content"] == (message["content"] or "")
    assert said["finish"] == said["whole"]["finish_reason"]
    assert said["usage"]["completion_tokens"] == said["usage_whole"]["completion_tokens"]
    assert said["refused"] == {"status": 400, "param": "temperature", "kind": "BadRequestError"}
    assert said["text"]["text"].startswith("Once")
    assert len(said["text"]["logprobs"]["tokens"]) >= 8
