"""Short stories and letters from a grammar of our own: the prompt names the people and things, the text tells."""

from .example import Example, article, user
from .words import ADJECTIVES, COLORS, NAMES

HEROES = """fox bear mouse rabbit farmer sailor dragon robot teacher baker wizard cat dog owl turtle frog painter
pilot""".split()
PLACES = ["forest", "village", "castle", "harbor", "garden", "valley", "city", "desert", "mountain", "island", "library",
          "market"]
THINGS = ["key", "map", "lamp", "book", "coin", "letter", "ring", "bell", "kite", "clock", "mirror", "flute", "box",
          "boat", "seed", "feather"]
PROBLEMS = {
    "lost": ("One day the {hero} lost the {thing} near the {place2}.",
             "{name} looked under every stone, but it was not there.",
             "At last {friend} found the {thing} behind an old tree.",
             "From then on {name} always kept the {thing} close."),
    "storm": ("One day a great storm came to the {place}.",
              "The wind was so strong that {name} could hardly stand.",
              "{friend} opened a door and shouted, \"Come in, quickly!\"",
              "They drank hot tea together until the storm was over."),
    "gift": ("One day {name} wanted to give {friend} a present.",
             "After a long walk to the {place2}, {name} found a {color} {thing}.",
             "{friend} smiled and said, \"This is the best present of my life.\"",
             "That evening they sang songs until the stars came out."),
    "help": ("One day {name} heard somebody cry for help.",
             "It was {friend}, who had fallen into a hole near the {place2}.",
             "{name} used a long rope and pulled until {friend} was free.",
             "Since that day the two have been the best of friends."),
    "secret": ("One day {name} found a {color} {thing} on the road to the {place2}.",
               "When {name} touched it, it began to shine like the sun.",
               "\"It shows the way home,\" said {friend}, who knew all the old tales.",
               "And so it did, on every dark night that followed."),
    "race": ("One day there was a race from the {place} to the {place2}.",
             "{friend} was very fast, but {name} never stopped.",
             "In the end {name} won, and everybody cheered.",
             "The prize was a {color} {thing}, and {name} shared it with {friend}."),
}
OPENINGS = ["Once upon a time there was {adj_a} {adj} {hero} called {name}, who lived in {place_a} {place}.",
            "Near a small {place} there lived {adj_a} {adj} {hero} called {name}.",
            "Long ago, {adj_a} {adj} {hero} called {name} lived near {place_a} {place}."]
TOPIC_PROBLEM = {"a lost {thing}": "lost", "a storm": "storm", "a present": "gift", "helping a friend": "help",
                 "a magic {thing}": "secret", "a race": "race"}


def story(rng):
    name, friend = rng.sample(NAMES, 2)
    values = {"name": name, "friend": friend, "hero": rng.choice(HEROES), "place": rng.choice(PLACES),
              "thing": rng.choice(THINGS), "adj": rng.choice(ADJECTIVES), "color": rng.choice(COLORS)}
    values["place2"] = rng.choice([p for p in PLACES if p != values["place"]])
    values["adj_a"], values["place_a"] = article(values["adj"]), article(values["place"])
    topic = rng.choice(sorted(TOPIC_PROBLEM))
    about = topic.format(**values)
    hero = f"{article(values['hero'])} {values['hero']}"
    prompt = rng.choice([
        f"Write a short story about {hero} called {name} and {about}.",
        f"Tell me a story about {values['adj_a']} {values['adj']} {values['hero']} named {name}, with {about}.",
        f"Tell a short story about {name} the {values['hero']}, {friend} and {about}.",
        f"Please write a story in {values['place_a']} {values['place']} about {name} and {about}.",
    ])
    lines = [rng.choice(OPENINGS), *PROBLEMS[TOPIC_PROBLEM[topic]]]
    return Example("story", [user(prompt)], " ".join(lines).format(**values))


OCCASIONS = {
    "thank {name} for the {gift}": ("thank you very much for the {gift}. It was a wonderful surprise, and I use it every "
                                    "day.", "You always know what makes me happy."),
    "invite {name} to a party on {day}": ("I would like to invite you to my party on {day}. We will start at {hour} "
                                          "o'clock, and there will be cake and music.", "Please tell me if you can come."),
    "apologize to {name} for being late": ("I am sorry that I was late last {day}. The train did not come, and I could "
                                           "not call you.", "I promise to be on time next time."),
    "ask {name} for help with the garden": ("I need some help with my garden. The grass is high and the roof of the "
                                            "shed is broken.", "Could you come on {day}? I will cook dinner for us."),
    "tell {name} about the holiday": ("I am writing to you from a small town by the sea. The weather is {weather}, and "
                                      "every morning I swim before breakfast.", "I will be back on {day}."),
    "congratulate {name} on the new job": ("congratulations on your new job! You worked hard for it, and nobody "
                                           "deserves it more than you.", "Let us celebrate together on {day}."),
    "say goodbye to {name}": ("soon I will move to another city, and I want to say goodbye. We had many good days "
                              "together.", "Please visit me when you can."),
    "complain to {name} about the noise": ("the music in your flat was very loud on {day}. I could not sleep until "
                                           "{hour} o'clock.", "Please be more quiet at night."),
}
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()


def letter(rng):
    name, me = rng.sample(NAMES, 2)
    values = {"name": name, "me": me, "day": rng.choice(DAYS), "hour": rng.randint(2, 11),
              "weather": rng.choice(["warm", "sunny", "windy", "cold"]),
              "gift": rng.choice(["book", "scarf", "lamp", "flowers", "clock", "picture", "hat", "cake"])}
    occasion = rng.choice(sorted(OCCASIONS))
    prompt = rng.choice([f"Write a short letter to {occasion}. Sign it as {me}.",
                         f"Write a letter from {me} to {occasion}.",
                         f"I am {me}. Help me write a letter to {occasion}."])
    body, close = OCCASIONS[occasion]
    ending = rng.choice(["Best wishes,", "Yours,", "Many greetings,"])
    text = f"Dear {{name}},\n\n{body} {close}\n\n{ending}\n{{me}}"
    return Example("letter", [user(prompt.format(**values))], text.format(**values))


def poem(rng):
    color, thing = rng.choice(COLORS), rng.choice(THINGS)
    place = rng.choice(PLACES)
    text = (f"The {thing} is {color}, the {place} is wide,\nI look at the stars with a friend at my side.\n"
            f"The night is so quiet, the wind is so low,\nand home through the {place} together we go.")
    return Example("poem", [user(rng.choice([f"Write a short poem about {article(color)} {color} {thing} in the {place}.",
                                             f"Give me four lines about {article(place)} {place} and {article(color)} {color} {thing}."]))], text)


GENERATORS = [(story, 10), (letter, 6), (poem, 1)]
