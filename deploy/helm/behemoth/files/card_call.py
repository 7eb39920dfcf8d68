#!/usr/bin/env python3
"""Sends the model card's own call to a gateway and shows it as it streams: the prefilled thought
and what the model adds to it dimmed, the answer plain. Standard library only, so that it runs on a
fresh machine; the same call through the official client is in the README.
"""

import argparse
import json
import ssl
import sys
import urllib.error
import urllib.request

CREATIVE = (
    "Ok i need to think as a creative writer \u2014 what twist would surprise here? "
    "Let me find an engaging new direction nobody saw coming, so"
)
CHARACTER_CARD = (
    "You are Gloucester, an old lord at a stormy court. You speak in the manner of the old plays, "
    "in few words, and you never leave your role."
)
USER_MESSAGE = "My lord, the king is at the gate and asks for you. What shall I tell him?"


def call(base, key, tls):
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    models = urllib.request.Request(f"{base}/v1/models", headers=headers)
    with urllib.request.urlopen(models, timeout=10, context=tls) as reply:
        model = json.load(reply)["data"][0]["id"]
    prefill = f"<think>\n{CREATIVE}\n"
    body = {
        "model": model,
        "messages": [
            {"role": "system", "content": CHARACTER_CARD},
            {"role": "user", "content": USER_MESSAGE},
            {"role": "assistant", "content": prefill},
        ],
        "continue_final_message": True,
        "add_generation_prompt": False,
        "temperature": 0.6,
        "max_tokens": 512,
        "stop": ["[INST]", "</s>"],
        "stream": True,
    }
    request = urllib.request.Request(
        f"{base}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers=headers,
    )
    dim, plain = ("\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"  user: {USER_MESSAGE}\n")
    sys.stdout.write(dim + prefill)
    text, thinking, finish = "", True, None
    with urllib.request.urlopen(request, timeout=600, context=tls) as reply:
        for line in reply:
            if not line.startswith(b"data: "):
                continue
            data = line[len(b"data: ") :].strip()
            if data == b"[DONE]":
                break
            chunk = json.loads(data)
            if "error" in chunk:
                sys.exit(f"\nerror: {chunk['error']['message']}")
            for choice in chunk["choices"]:
                piece = choice["delta"].get("content") or ""
                text += piece
                sys.stdout.write(piece)
                if thinking and "</think>" in text:
                    thinking = False
                    sys.stdout.write(plain)
                sys.stdout.flush()
                finish = choice.get("finish_reason") or finish
    print(f"{plain}\n\n  finish_reason: {finish}")
    if not text:
        sys.exit("error: the stream held no text")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", help="http://127.0.0.1:8000")
    parser.add_argument("--api-key-file", help="file that holds a key; without it any key is sent")
    parser.add_argument("--insecure", action="store_true", help="take any certificate")
    arguments = parser.parse_args()
    key = "-"
    if arguments.api_key_file:
        with open(arguments.api_key_file, encoding="utf-8") as file:
            key = file.read().strip()
    tls = ssl._create_unverified_context() if arguments.insecure else None
    try:
        call(arguments.base.rstrip("/"), key, tls)
    except urllib.error.HTTPError as error:
        sys.exit(f"error: HTTP {error.code}: {error.read().decode(errors='replace')}")
    except (urllib.error.URLError, TimeoutError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
