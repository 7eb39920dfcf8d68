"""The playground in headless Chromium, in front of the three real processes.

Skips, and says so, where there is no Chromium. BEHEMOTH_SCREENSHOTS=FOLDER keeps a picture of each width
(gateway/page/README.md shows them).
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from conftest import KEY

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
WIDTHS = {390: 844, 1440: 900}
SCREENSHOTS = os.environ.get("BEHEMOTH_SCREENSHOTS")
WAIT_MS = 120_000  # a busy machine: 90 tokens of the tiny model take a minute there
IDLE, BUSY = "#send:not([hidden])", "#stop:not([hidden])"
LONG = {"ignore_eos": True, "max_tokens": 900}  # 4 s of the tiny model at the least: time to stop it


@pytest.fixture(scope="session")
def browser():
    if BROWSER is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium runs these tests")
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield running
        running.close()


class Desk:
    """One page, fresh storage, and what it logged and asked for."""

    def __init__(self, browser, url, width):
        self.context = browser.new_context(viewport={"width": width, "height": WIDTHS[width]})
        self.page = page = self.context.new_page()
        self.url, self.complaints, self.hosts = url, [], set()
        page.set_default_timeout(WAIT_MS)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda line: line.type == "error" and self.complaints.append(line.text))
        page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))
        page.goto(url)
        page.wait_for_selector("#state[data-is=ready]")

    def wish(self, **fields):
        """Writes into the controls as a user does, whatever is folded."""
        self.page.wait_for_selector("#samplers .field", state="attached")
        for name, value in fields.items():
            self.page.evaluate("""([name, value]) => {
                const control = document.getElementById(name);
                control.value = control.tagName == 'SELECT' && name.startsWith('f-')
                    ? JSON.stringify(value) : value;
                for (const event of ['input', 'change']) control.dispatchEvent(new Event(event));
            }""", [name if name in ("preset", "system", "budget") else f"f-{name}", value])

    def say(self, text):
        self.page.fill("#say", text)
        self.page.keyboard.press("Enter")

    def answered(self):
        self.page.wait_for_selector(IDLE)
        return self.chat()

    def chat(self):
        return self.page.evaluate("chat.map(({role, text}) => ({role, text}))")

    def tool(self, name, turn=-1):
        self.page.locator("article").nth(turn).get_by_role("button", name=name, exact=True).click()

    def written(self, count):
        """The answer has that many characters. Not wait_for_function: the page's policy forbids eval."""
        end = time.monotonic() + WAIT_MS / 1000
        while self.page.evaluate("chat.at(-1).role == 'assistant' ? chat.at(-1).text.length : 0") < count:
            assert time.monotonic() < end
            self.page.wait_for_timeout(20)

    def trouble(self):
        self.page.wait_for_selector("#trouble:not([hidden])")
        return self.page.inner_text("#trouble span")


@pytest.fixture(params=WIDTHS)
def desk(request, browser, gateway):
    made = Desk(browser, gateway, request.param)
    yield made
    made.context.close()
    assert made.hosts == {gateway.split("/")[2]}
    assert [c for c in made.complaints if "Failed to load resource" not in c] == []


def test_a_chat_shows_thinking_apart_and_foldable(desk, request):
    desk.wish(preset="creative", max_tokens=90, temperature=0, system="You are Leon.")
    desk.say("Hello! Who goes *there*?")
    user, answer = desk.answered()
    assert user == {"role": "user", "text": "Hello! Who goes *there*?"}
    assert answer["text"].startswith("<think>\nOk i need to think as a creative writer")
    thought, text = answer["text"].split("</think>")
    page = desk.page
    assert page.inner_text("article.assistant .text").strip() == re.sub(r"\*", "", text).strip()
    assert not page.is_visible(".thought")
    page.click("details.think summary")
    assert page.inner_text(".thought") == thought.removeprefix("<think>\n").rstrip()
    assert page.inner_text("article.user em") == "there"
    assert re.fullmatch(r"[\d.]+ tokens/s · \d+ tokens", page.inner_text("#speed"))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if SCREENSHOTS:
        width = page.viewport_size["width"]
        page.screenshot(path=Path(SCREENSHOTS) / f"{width}.png")
    page.reload()  # the conversation is still there
    page.wait_for_selector("article.assistant")
    assert desk.chat() == [user, answer]


def test_the_page_sends_what_the_server_answers_without_a_warning(desk):
    desk.wish(top_p=0.9, min_p=0.05, seed=7, stop="zzz\n###", logit_bias='{"5": -1}',
              stop_token_ids="7, 8", ignore_eos=True, max_tokens=4)
    desk.say("Hello")
    desk.answered()
    assert desk.page.evaluate("wishes") == {
        "top_p": 0.9, "min_p": 0.05, "seed": 7, "stop": ["zzz", "###"], "logit_bias": {"5": -1},
        "stop_token_ids": [7, 8], "ignore_eos": True, "max_tokens": 4}
    assert desk.page.inner_text("article.assistant .note") == "Ended at its length: Continue goes on."


def test_stop_keeps_what_was_written_and_continue_goes_on_from_it(desk):
    desk.wish(**LONG)
    desk.say("Tell me a long story.")
    page = desk.page
    desk.written(40)
    page.keyboard.press("Escape")
    stopped = desk.answered()[-1]["text"]
    assert len(stopped) >= 40
    assert page.is_hidden("#trouble")
    end = time.monotonic() + 20  # the server lets it go
    while httpx.get(f"{desk.url}/load").json()["server_load"] > 0:
        assert time.monotonic() < end
    desk.wish(max_tokens=8)
    desk.tool("Continue")
    longer = desk.answered()[-1]["text"]
    assert longer.startswith(stopped) and len(longer) > len(stopped)
    assert len(desk.chat()) == 2


def test_stopped_in_the_middle_of_a_thought_it_is_continued_inside(desk):
    desk.wish(preset="analytical", max_tokens=3, temperature=0)
    desk.say("Hello")
    opened = desk.answered()[-1]["text"]
    assert "</think>" not in opened
    assert desk.page.is_visible(".thought")
    desk.wish(max_tokens=120)
    desk.tool("Continue")
    whole = desk.answered()[-1]["text"]
    assert whole.startswith(opened) and "</think>" in whole


def test_regenerate_and_edit(desk):
    desk.wish(max_tokens=12, temperature=1, seed=1)
    desk.say("Hello")
    first = desk.answered()[-1]["text"]
    desk.wish(seed=2)
    desk.tool("Regenerate")
    second = desk.answered()[-1]["text"]
    assert second != first and len(desk.chat()) == 2
    desk.tool("Edit", 0)
    desk.page.fill("article textarea", "Good bye")
    desk.tool("Save and answer", 0)
    assert desk.answered()[0]["text"] == "Good bye"
    desk.tool("Edit")
    desk.page.fill("article textarea", "My own words")
    desk.tool("Save")
    assert desk.chat()[-1] == {"role": "assistant", "text": "My own words"}
    desk.tool("Delete")
    assert len(desk.chat()) == 1


def test_an_error_is_told_in_the_server_s_words_and_can_be_retried(desk):
    desk.wish(max_tokens=100_000)
    desk.say("Hello")
    assert "maximum context length is 1024 tokens" in desk.trouble()
    assert [turn["role"] for turn in desk.chat()] == ["user"]
    desk.wish(max_tokens=4)
    desk.page.click("#retry")
    desk.page.wait_for_selector("article.assistant")
    assert [turn["role"] for turn in desk.answered()] == ["user", "assistant"]
    assert desk.page.is_hidden("#trouble")


def test_offline_is_shown_and_nothing_is_lost(desk):
    desk.wish(max_tokens=4)
    desk.context.set_offline(True)
    desk.page.wait_for_selector("#state[data-is=offline]")
    desk.say("Are you there?")
    assert "cannot be reached" in desk.trouble()
    assert desk.chat() == [{"role": "user", "text": "Are you there?"}]
    desk.context.set_offline(False)
    desk.page.wait_for_selector("#state[data-is=ready]")
    desk.page.click("article.user .tools button >> text=Answer")
    desk.page.wait_for_selector("article.assistant")
    assert len(desk.answered()) == 2


def test_a_server_that_stops_is_offline(browser, start, backends):
    service = start("behemoth-gateway", *backends, "--drain-timeout-s", 1)
    desk = Desk(browser, f"http://{service.address}", 1440)
    desk.wish(**LONG)
    desk.say("Hello")
    desk.written(20)
    service.process.terminate()
    assert "What was written so far is kept" in desk.trouble()
    assert len(desk.answered()[-1]["text"]) >= 20
    desk.page.wait_for_selector("#state[data-is=offline]")
    desk.context.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_key_is_asked_for_and_kept_for_the_tab(browser, locked_gateway, width):
    desk = Desk(browser, locked_gateway, width)
    assert "API key" in desk.trouble()
    desk.page.wait_for_selector("#key:focus")
    desk.page.keyboard.type(KEY)
    desk.page.keyboard.press("Enter")
    desk.page.wait_for_selector("#preset option[value=creative]", state="attached")
    desk.wish(max_tokens=4)
    desk.page.keyboard.press("Escape")
    desk.say("Hello")
    desk.page.wait_for_selector("article.assistant")
    assert len(desk.answered()) == 2
    assert KEY not in desk.page.evaluate("JSON.stringify(localStorage)")
    desk.context.close()


def test_samplers_and_ranges_are_the_description_s(desk, http):
    fields = http.get("/openapi.json").json()["components"]["schemas"]["ChatRequest"]["properties"]
    desk.page.wait_for_selector("#samplers .field", state="attached")
    shown = desk.page.eval_on_selector_all("#samplers .field input[type=number]", """boxes =>
        boxes.map(box => [box.id.slice(2), Number(box.min), Number(box.max)])""")
    assert {"temperature", "top_p", "top_k", "min_p", "repetition_penalty"} <= {n for n, *_ in shown}
    for name, low, high in shown:
        field = fields[name]
        described = field.get("exclusiveMinimum", field.get("minimum")), field["maximum"]
        assert (float(low), float(high)) == tuple(map(float, described)), name
    there = set(desk.page.eval_on_selector_all("#samplers .field [id^=f-]", "a => a.map(e => e.id.slice(2))"))
    assert all(fields[name]["x-support"] == "works" for name in there)
    later = {n for n in ("typical_p", "dry_multiplier", "xtc_probability", "banned_strings",
                         "top_n_sigma", "smoothing_factor") if n not in there}
    assert all(fields[name]["x-support"] == "not_yet" for name in later)
    assert all(name in desk.page.inner_text("#later") or desk.page.is_hidden("#later") for name in later)


# The comments are gateway/session/generation_session.cc's, sent after 10 s of silence.
@pytest.mark.parametrize("comment,words", [
    ("waiting queue_position=3", "place 3 in the queue"),
    ("waiting queue_position=0", "next in the queue"),
    ("prefilled=512/2048", "reading the prompt, 512 of 2048 tokens")])
def test_a_comment_of_the_stream_becomes_a_place_in_the_queue(desk, comment, words):
    shown = desk.page.evaluate("""async comment => {
        const lines = new Response(`: ${comment}\\n\\ndata: [DONE]\\n\\n`).body, run = {words: ''};
        for await (const event of events(lines)) if (event.comment) progress(run, event.comment);
        speed(run);
        return document.getElementById('speed').textContent;
    }""", comment)
    assert shown == words


def test_the_exported_request_runs_as_written(desk, tmp_path):
    desk.wish(preset="unhinged", max_tokens=5, temperature=0.5, min_p=0.1, system="It's \"Leon\".")
    desk.page.fill("#say", "Don't \\ stop — ünïcode 'quotes'")
    desk.page.evaluate("openPanel(true)")
    desk.page.click("#export")
    curl = desk.page.inner_text("#code")
    reply = json.loads(subprocess.run(["bash", "-c", curl], capture_output=True, text=True).stdout)
    assert reply["usage"]["completion_tokens"] == 5 and "warnings" not in reply, reply
    desk.page.click("#as-python")
    script = tmp_path / "exported.py"
    script.write_text(desk.page.evaluate("document.getElementById('code').textContent"))
    run = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout.strip(), run.stderr


def test_by_keyboard_alone(desk):
    page = desk.page
    desk.wish(max_tokens=3)
    page.focus("#say")
    page.keyboard.type("One")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    page.keyboard.press("Enter")
    page.wait_for_selector("article.assistant")
    assert desk.answered()[0]["text"] == "One\ntwo"
    names = set()
    page.evaluate("document.activeElement.blur()")
    for _ in range(120):
        page.keyboard.press("Tab")
        names.add(page.evaluate("document.activeElement.textContent.trim() || document.activeElement.id"))
    assert {"New chat", "Settings", "Regenerate", "Continue", "Edit", "say"} <= names


def test_dark_and_light(desk):
    page = desk.page
    colour = "getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(colour)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(colour)
    assert dark != light
    page.click("#theme")
    assert page.evaluate(colour) == dark
