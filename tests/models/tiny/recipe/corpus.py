"""The two public-domain texts as speakable sentences, each found again by the words it speaks of."""

import random
import re
from collections import Counter, defaultdict
from pathlib import Path

STOP = set("""about above after again against almost alone along already also although always among
another around because been before behind being below between beyond both came come could does doing
done down each either else enough even ever every from gave give goes going gone good have having
hear heard hence here herself himself hither into itself just knew know known least less like made
make many mine more most much must myself near neither never next none nothing once only other ought
ourselves over rather said same says shall should since some something soon still such take taken
tell than that thee their them themselves then there these they thine thing think this those thou
though through thus till together told took towards under unless until unto upon used very want well
went were what when where whether which while whom whose will with within without would yours your
yourself first second third shalt hath doth wilt hast dost canst come make here right quite looked
looking seemed began fellow really thought""".split())


def _tidy(text):
    text = re.sub(r"\s+", " ", text.replace("--", " — ").replace("_", "")).strip()
    return re.sub(r" +— +", " — ", text)


def _sentences(text):
    return [s.strip() for s in re.split(r"(?<=[.!?])\s+", text) if s.strip()]


def _play(text):
    """Speeches as prose: a verse line's capital goes when the sentence runs on across the line."""
    low = {w for w, n in Counter(re.findall(r"\b[a-z']+\b", text)).items() if n > 2}
    for block in text.split("\n\n"):
        speaker, _, speech = block.partition(":\n")
        if not speech or len(speaker) > 30:
            continue
        words, previous = [], "."
        for line in speech.split("\n"):
            head, space, tail = line.partition(" ")
            if previous[-1:] not in ".!?" and head.lower().strip(",;:") in low and head != "I":
                line = head.lower() + space + tail
            words.append(line)
            previous = line or previous
        yield _tidy(" ".join(words))


def _novel(text):
    body = text.split("*** START OF")[1].split("*** END OF")[0]
    body = body[body.find("CHAPTER I"):] if "CHAPTER I" in body else body
    for quote in re.findall(r'"([^"]{12,300})"', body):
        yield _tidy(quote)
    for sentence in _sentences(_tidy(re.sub(r'"[^"]*"', " ", body))):
        yield sentence


class Corpus:
    """voices: 'play' and 'novel', each a list of sentences of 4 to 24 words."""

    def __init__(self, folder):
        folder = Path(folder)
        play = (folder / "tinyshakespeare.txt").read_text()
        novel = (folder / "botchan.txt").read_text(encoding="utf-8-sig")
        self.raw = {"play": play, "novel": novel[novel.find("CHAPTER I"):]}
        self.voices = {
            "play": self._keep(s for speech in _play(play) for s in _sentences(speech)),
            "novel": self._keep(s for part in _novel(novel) for s in _sentences(part)),
        }
        self.about = {voice: self._index(lines) for voice, lines in self.voices.items()}
        self.topics = {v: sorted(t for t, lines in a.items() if 4 <= len(lines) <= 220)
                       for v, a in self.about.items()}

    @staticmethod
    def _keep(sentences):
        kept = {s for s in sentences
                if 4 <= len(s.split()) <= 24 and s[0].isupper() and s[-1] in ".!?"
                and not re.search(r'["\[\]()*]|[A-Z]{3}|Gutenberg', s)}
        return sorted(kept)

    @staticmethod
    def _index(lines):
        about = defaultdict(list)
        for line in lines:
            for word in set(re.findall(r"\b[a-z]{4,}\b", line)) - STOP:
                about[word].append(line)
        return about

    def lines(self, rng: random.Random, voice, topic, count):
        """`count` sentences of the voice, the first about the topic where the voice knows it."""
        known = self.about[voice].get(topic)
        first = rng.choice(known) if known else rng.choice(self.voices[voice])
        rest = []
        while len(rest) < count - 1:
            other = rng.choice(known if known and rng.random() < 0.6 else self.voices[voice])
            if other != first and other not in rest:
                rest.append(other)
        return [first, *rest]
