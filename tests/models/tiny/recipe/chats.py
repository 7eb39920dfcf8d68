"""The chat generator: cards, users, think blocks and answers, every wording drawn from a seed.

A chat is a list of {"role", "content"} as the 2411 template takes it. What ties a reply together is
a plan (who speaks, topic, mood, want): the think block states it, the answer's gesture and lines
follow from it. Names and some topics are made-up words, so that the model must copy, not recall.
"""

PREFILLS = {
    "analytical": "Ok i need to think about how to respond — what does the character feel right now, "
    "what from their experience is relevant, what do they value, and what are they trying to achieve, so",
    "creative": "Ok i need to think as a creative writer — what twist would surprise here? "
    "Let me find an engaging new direction nobody saw coming, so",
    "unhinged": "Ok i need to think as an unhinged author — raw, explicit, intense, "
    "fully in character with no holding back, so",
}
ROLES = {
    "play": "king,queen,duke,soldier,nurse,friar,prince,jester,innkeeper,captain,merchant,witch,knight,"
    "shepherd,gravedigger,tailor,ghost,minstrel,healer,ranger,elf,blacksmith,pirate,guardian",
    "novel": "schoolmaster,student,clerk,fisherman,landlady,grandmother,painter,head teacher,cook,"
    "traveller,doctor,detective,librarian,neighbour,robot,assistant,mechanic,poet,barista,roommate",
}
PLACES = ("Verona,Rome,an old castle,the forest,a seaside town,a quiet school,the harbour,a tavern,"
          "the hot springs,a country house,the city,a far kingdom,Tokyo,a lonely tower").split(",")
TRAITS = ("proud,gentle,hot-tempered,loyal,sly,honest,weary,merry,stubborn,kind,bitter,brave,curious,"
          "melancholy,blunt,playful,patient,jealous,wise,reckless").split(",")
MOODS = {  # mood: gestures
    "merry": ["laughs", "grins and lifts a cup", "claps both hands", "bows with a flourish"],
    "angry": ["strikes the table", "turns away, then back", "clenches a fist", "glares"],
    "sad": ["looks down", "sighs", "speaks very softly", "turns to the window"],
    "tender": ["smiles", "takes your hand", "draws a little nearer", "lowers the voice"],
    "wary": ["looks over one shoulder", "steps back", "narrows both eyes", "waits a moment"],
    "proud": ["stands tall", "lifts the chin", "folds both arms", "waves a hand"],
    "curious": ["leans closer", "tilts the head", "looks you up and down", "raises an eyebrow"],
}
WANTS = ("keep a secret,win a friend,be understood,be left in peace,tell the truth,make {user} laugh,"
         "test {user},warn {user},comfort {user},hide the pain,be obeyed,hear more,settle an old score,"
         "turn the talk another way").split(",")
VALUES = "honour,love,freedom,truth,family,courage,loyalty,peace,pride,good company,a quiet life".split(",")
TWISTS = ["{name} has known about {topic} all along", "{topic} is the very thing {name} fears",
          "{name} laughs when nobody expects it", "{name} answers with a question",
          "{name} once lost everything over {topic}", "{name} confesses instead of hiding it"]
NEW_WORDS = ("pizza,computer,dragon,coffee,football,robots,the internet,magic,homework,the weather,cats,"
             "spaceship,phone,music,chocolate,vampires,football,work,movies,programming,zombies,dinner,"
             "the moon,holiday,my boss,my mother,guitar,physics,Paris,breakfast,love,games").split(",")
ASK = ["Tell me about {t}.", "What do you think of {t}?", "What about {t}?", "I keep thinking about {t}.",
       "Do you like {t}?", "Let us talk of {t}.", "I had a dream about {t}.", "can you explain {t} to me",
       "*I sit down beside you.* What do you know of {t}?", "Have you heard about {t}?", "{t}?",
       "I need your advice on {t}, {name}.", "{name}, why do you never speak of {t}?",
       "*walks in* Hello {name}! I brought you news of {t}.", "Write a short line about {t}.",
       "My friend told me that {t} is all that matters. Is that true?", "I am afraid of {t}."]
SMALL = {"Hello!": "greeting", "Hi": "greeting", "Hello there": "greeting", "Good evening, {name}.": "greeting",
         "How are you today?": "health", "how are you": "health", "Are you well, {name}?": "health",
         "Who are you?": "name", "What is your name?": "name", "Tell me about yourself.": "name",
         "Goodbye, {name}.": "parting", "I must go now.": "parting", "Good night!": "parting",
         "I love you.": "love", "Do you love me?": "love", "Help me, please!": "danger",
         "*draws a sword* Stand back!": "danger", "Where are we?": "place", "Thank you.": "thanks"}
OPEN = {"greeting": ["Well met, {user}.", "Good day to you, {user}!", "Ah, {user}! Come in, come in."],
        "health": ["I am {trait}, as ever.", "Well enough, {user}, well enough.", "As {mood} as you see me."],
        "name": ["I am {name}, {role} of {place}.", "They call me {name}.", "{name} is my name, and {role} my trade."],
        "parting": ["Farewell, {user}.", "Go safely, {user}.", "So soon? Good night, then."],
        "love": ["Love, {user}?", "Say that again, {user}.", "You speak of love so lightly."],
        "danger": ["Peace, {user}!", "Stay behind me.", "Quick, {user}, this way!"],
        "place": ["This is {place}, {user}.", "You stand in {place}.", "Where else but {place}?"],
        "thanks": ["It is nothing, {user}.", "You are welcome, {user}.", "Keep your thanks, {user}."]}
SAY = ["You speak of {t}.", "{T}, you say?", "Ah, {t}!", "You ask about {t}, {user}?", "I know of {t}.",
       "So it is {t} again.", "{T}! I have waited for someone to say that word."]
CLOSE = ["What say you, {user}?", "And you, {user}?", "Will you hear more of {t}?", "Now tell me the rest.",
         "That is all I will say.", "Do you understand me?", "What would you do?"]
CARDS = ["You are {name}, {a} {role} of {place}. {name} is {trait} and {trait2}.",
         "You are {name}, a {trait} {role}. Stay in character. You speak with {user}.",
         "{name} is a {trait}, {trait2} {role} who lives in {place}. Write {name}'s next reply in a fictional chat between {name} and {user}.",
         "Name: {name}\nRole: {role}\nPersonality: {trait}, {trait2}\nScenario: {user} meets {name} in {place}.",
         "[Character: {name}. {name} is {a} {role}. Traits: {trait}, {trait2}.]\nThe scene is {place}.",
         "Play {name}, the {trait} {role}.", "You are {name}.",
         "Write as {name}. The user's name is {user}.\n\n{name} is {trait}, and values {value} above all. {lore}"]
SYLLABLES = "ka,ro,mi,sel,tha,dor,li,an,ser,ap,hi,na,bel,jo,ru,mar,ven,el,qui,zo,wen,ta,gri,os,fen,yu,ada,lor".split(",")
NAMES = ("Romeo,Juliet,Kiyo,Botchan,Gremio,Henry,Clara,Tom,Alice,Marcus,Emma,Luna,Victor,Rose,Max,Sarah,"
         "Kate,Richard,Angelo,Isabella,Seraphina,Aria,Leon,Mia,Ben,Nora,Hugo,Ivy,Oscar,Lena").split(",")


class ChatGenerator:
    """Endless chats over one corpus; one instance and one rng per process."""

    def __init__(self, corpus, rng):
        self.corpus, self.rng = corpus, rng

    def name(self):
        if self.rng.random() < 0.5:
            return self.rng.choice(NAMES)
        return "".join(self.rng.sample(SYLLABLES, self.rng.choice([2, 2, 3]))).capitalize()

    def plan(self):
        pick = self.rng.choice
        voice = "play" if self.rng.random() < 0.62 else "novel"
        trait, trait2 = self.rng.sample(TRAITS, 2)
        role = pick(ROLES[voice].split(","))
        return {"voice": voice, "name": self.name(), "user": self.name() if self.rng.random() < 0.6 else "friend",
                "role": role, "a": "an" if role[0] in "aeiou" else "a", "place": pick(PLACES), "trait": trait,
                "trait2": trait2, "value": pick(VALUES)}

    def card(self, p):
        lore = " ".join(self.corpus.lines(self.rng, p["voice"], "", self.rng.randint(1, 6)))
        text = self.rng.choice(CARDS).format(**p, lore=lore)
        if self.rng.random() < 0.25:
            text += self.rng.choice(["\n\n", " "]) + lore
        return text

    def user_turn(self, p):
        """(message, topic, kind of small talk or None)."""
        rng, roll = self.rng, self.rng.random()
        if roll < 0.2:
            text = rng.choice(list(SMALL))
            return text.format(**p), SMALL[text], SMALL[text]
        if roll < 0.62:
            topic = rng.choice(self.corpus.topics[p["voice"]]) if rng.random() < 0.75 else rng.choice(NEW_WORDS)
            if rng.random() < 0.06:
                topic = self.name().lower()
            text = rng.choice(ASK).format(t=topic, name=p["name"])
            return text[0].upper() + text[1:] if rng.random() < 0.8 else text.lower(), topic, None
        other = rng.choice(["play", "novel"])
        topic = rng.choice(self.corpus.topics[other])
        text = " ".join(self.corpus.lines(rng, other, topic, rng.randint(1, 3)))
        return (f'*{rng.choice(["waits", "nods", "comes closer", "sits down"])}* {text}' if rng.random() < 0.2 else text), topic, None

    def think(self, style, p, topic, mood, want):
        pick = self.rng.choice
        f = dict(p, topic=topic, mood=mood, want=want, manner=pick(
            ["in few words", "plainly", "with a smile", "with an old saying", "from the heart", "and then wait"]))
        tail = pick(["I will let {name} answer {manner}.", "{name} will answer {manner}.",
                     "So the reply should be {mood}, and {manner}."])
        core = {
            "analytical": pick(["{name} feels {mood} now that {topic} is spoken of. A {trait} {role} values {value}, and {name} wants to {want}. ",
                                "the talk turns to {topic}, and {name} is {mood}. {name} has seen {place} and learned to value {value}. The aim is to {want}. "]),
            "creative": pick(["what if " + pick(TWISTS) + "? Nobody expects that of a {role}. ",
                              "here is the turn: " + pick(TWISTS) + ". It makes {name} {mood}. "]),
            "unhinged": pick(["no gentle words. {name} is {mood} to the bone, and {topic} burns. {name} means to {want}. ",
                              "let {name} say it raw: {topic}, and nothing else. {name} is {mood} and will not hide it. "]),
        }[style]
        return (core + tail).format(**f)

    def answer(self, p, topic, kind, mood):
        rng = self.rng
        f = dict(p, t=topic, T=topic[:1].upper() + topic[1:], mood=mood)
        parts = [f"*{p['name']} {rng.choice(MOODS[mood])}.*"] if rng.random() < 0.6 else []
        if kind:
            parts.append(rng.choice(OPEN[kind]).format(**f))
        elif rng.random() < 0.6 or not self.corpus.about[p["voice"]].get(topic):
            parts.append(rng.choice(SAY).format(**f))
        parts += self.corpus.lines(rng, p["voice"], topic, rng.choice([1, 1, 2, 2, 3]))
        if rng.random() < 0.45:
            parts.append(rng.choice(CLOSE).format(**dict(f, t="it" if kind else topic)))
        return " ".join(parts)

    def assistant_turn(self, p, topic, kind, thinks):
        rng, mood = self.rng, self.rng.choice(list(MOODS))
        reply = self.answer(p, topic, kind, mood)
        if not thinks:
            return reply
        style = rng.choice(list(PREFILLS))
        want = rng.choice(WANTS).format(**p)
        thought = self.think(style, p, topic, mood, want)
        opening = PREFILLS[style] + rng.choice(["\n", "\n", "\n", " "])
        roll = rng.random()
        if roll < 0.12:
            opening, thought = "", thought[0].upper() + thought[1:]
        elif roll < 0.2:
            opening = rng.choice(["Ok i need to think, so\n", "Let me think. ", "Okay, so ", "Hmm, "])
        return f"<think>\n{opening}{thought}\n</think>\n\n{reply}"

    def chat(self):
        rng, p, messages = self.rng, self.plan(), []
        if rng.random() < 0.8:
            messages.append({"role": "system", "content": self.card(p)})
        else:
            p.update(name="I", user="friend") if rng.random() < 0.5 else None
        if p["name"] == "I":
            p["name"] = self.name()
        if messages and rng.random() < 0.2:
            messages.append({"role": "assistant", "content": self.answer(p, "greeting", "greeting", "merry")})
        thinks, keeps = rng.random() < 0.72, rng.random() < 0.3
        turns = rng.choice([1, 1, 1, 2, 2, 3, 5])
        for turn in range(turns):
            text, topic, kind = self.user_turn(p)
            messages.append({"role": "user", "content": text})
            messages.append({"role": "assistant", "content": self.assistant_turn(
                p, topic, kind, thinks and (keeps or turn == turns - 1))})
        return messages
