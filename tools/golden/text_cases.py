"""Inputs of the text goldens: strings, id sequences, conversations and small templates. Seeded, no files."""

import random

SPECIAL_SPELLINGS = [
    "<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|think|>", "<|tool>",
    "<tool|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>', "<|image>", "<|audio>",
    "<|image|>", "<|audio|>", "<image|>", "<audio|>", "<|video|>",
]  # fmt: skip
NEAR_SPECIALS = ["<|turn", "|turn>", "<turn>", "<<|turn>>", "<|tur\u200bn>", "<BOS>", "< bos>", "<unused0>", "<unused6226>",
                 "<unused6227>", "<0x41>", "<0xE5>", "<0xG0>", "[multimodal]", "<image_soft_token>", "<start_of_turn>"]  # fmt: skip
POOLS = {
    "words": "the of and to in is you that it he was for on are as with his they at be this have from or one had by word but not "
    "what all were we when your can said there use an each which she do how their if will up other about out many then "
    "them these so some her would make like him into time has look two more write go see number no way could people".split(),
    "mixed_case": ["HTTPServer", "camelCase", "snake_case", "SCREAMING_CASE", "iPhone", "eBay", "McDonald", "naïve", "Übergröße"],
    "digits": ["0", "7", "42", "1234567890", "3.14159", "1,000,000", "-17", "6.02e23", "0x7f", "٣٤٥", "१२३", "²³", "½", "Ⅳ", "００１"],
    "space": [" ", "  ", "   ", " " * 7, " " * 31, "\t", "\t\t", "\n", "\n\n", "\n" * 5, "\r\n", "\r", "\u00a0", "\u2003", "\u3000", "\u200b", "\u2581", "\u2581\u2581", "\v", "\f"],
    "punctuation": list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") + ["...", "—", "–", "“”", "‘’", "«»", "¿", "¡", "…", "→", "≠", "∑", "§", "°"],
    "latin": ["é", "e\u0301", "ñ", "ß", "ﬁ", "Ǆ", "ø", "ł", "ő", "Đ", "ı", "İ", "ſ", "ÿ", "Zürich", "garçon", "Ångström", "Łódź"],
    "scripts": ["Привет, мир", "Ελληνικά", "שלום", "السلام عليكم", "नमस्ते", "สวัสดี", "こんにちは", "カタカナ", "漢字", "你好，世界", "안녕하세요", "ᄒ\u1161ᆫ", "ქართული", "አማርኛ", "ᠮᠣᠩᠭᠣᠯ", "𐤀𐤁", "𒀀", "தமிழ்", "বাংলা", "𠀀𠮷"],
    "emoji": ["😀", "👍🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇫🇷🇩🇪", "❤️", "☃", "1️⃣", "🫠", "🧑🏿‍🚀", "©", "™", "🀄", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"],
    "odd": ["\x00", "\x01", "\x07", "\x1b[0m", "\x7f", "\x80", "\x9f", "\ufeff", "\ufffd", "\ufffe", "\uffff", "\U0001ffff", "\U0010ffff", "\ue000", "\u202e", "\u2028", "\u0378", "\u00ad"],
    "code": ["def f(x):\n    return x ** 2\n", "for (int i = 0; i < n; ++i) {\n\tsum += a[i];\n}", '{"key": [1, 2.5, null, true]}', "SELECT * FROM t WHERE a='b';", "<div class=\"x\">&amp;</div>", "https://example.org/a/b?c=d&e=%20#f", "user@example.com", "C:\\Temp\\x.txt", "$\\frac{a}{b}$", "#include <vector>", "std::map<int, std::string>", "λx. x x", "git commit -m 'fix: it'", "    if True:\n        pass", "```python\nprint('hi')\n```", "// ----------------", "a=>b", "!==", "&&||", "0b1010"],
    "special": SPECIAL_SPELLINGS,
    "near_special": NEAR_SPECIALS,
}  # fmt: skip
LONG = [("a", 20000), ("ab", 7000), (" ", 5000), ("\n", 3000), ("the quick brown fox ", 1500), ("漢字", 3000), ("😀", 1500),
        ("\U0010ffff", 700), ("0123456789", 1200), ("<|turn>user\n", 900), ("=", 4096), ("e\u0301", 2500)]  # fmt: skip


def strings():
    """About 300: fixed edge cases, every pool item alone, then seeded mixtures."""
    rng = random.Random(20260709)
    out = ["", " ", "  a", "a  ", " a b ", "before <|image|> after", "Hello, world!", "叫", "\u2581leading", "x" * 300, "ha" * 100]
    out += ["-" * length for length in (3, 8, 63, 64, 65)] + [" " * length for length in (2, 15, 16, 17, 32, 40)]
    out += ["\n" * length for length in (2, 3, 4, 31, 32, 33)] + ["\t" * length for length in (2, 3, 9)]
    out += SPECIAL_SPELLINGS + NEAR_SPECIALS
    out += [left + right for left, right in zip(SPECIAL_SPELLINGS, reversed(SPECIAL_SPELLINGS))][:8]
    out += POOLS["scripts"] + POOLS["emoji"] + POOLS["odd"] + POOLS["code"] + POOLS["latin"][:6]
    names = list(POOLS)
    for number in range(110):
        chosen = rng.sample(names, rng.randint(1, 4))
        glue = rng.choice(["", " ", " ", "\n"])
        out.append(glue.join(rng.choice(POOLS[rng.choice(chosen)]) for _ in range(rng.randint(2, 14))))
    for number in range(25):  # any scalar value at all
        points = (rng.choice([rng.randrange(0x20, 0x250), rng.randrange(0x250, 0xD800), rng.randrange(0xE000, 0x110000)]) for _ in range(12))
        out.append("".join(map(chr, points)))
    return list(dict.fromkeys(out))


def id_sequences(vocab, encoded):
    """Decode inputs: random ids, byte tokens whole, cut and wrong, specials between, and cut encodings."""
    rng, byte = random.Random(7), 238
    out = [[], [2, 105, 2364, 107], [467, 381, 409], [467, 381], [467], [381, 409], [106, 106], [236743], [138, 139, 140], [107, 108, 109]]
    for text in ("é", "漢", "😀", "a漢b", "👨‍👩‍👧", "\U0010ffff"):
        data = [byte + value for value in text.encode()]
        out += [data, data[:-1], data[1:], data[:-1] + [105] + data[-1:], data + data[:1], data[:1] + [818] + data[1:]]
    for wrong in ([0xC0, 0x80], [0xED, 0xA0, 0x80], [0xF4, 0x90, 0x80, 0x80], [0xFF], [0x80, 0x41], [0xE5, 0x41, 0x8F], [0xF0, 0x9F, 0x98], [0, 0x7F]):
        out.append([byte + value for value in wrong])
    for _ in range(40):
        out.append([rng.randrange(vocab) for _ in range(rng.randint(1, 12))])
    for _ in range(40):
        pick = [lambda: byte + rng.randrange(256), lambda: rng.randrange(vocab), lambda: rng.choice([2, 50, 100, 101, 105, 106, 258880])]
        out.append([rng.choice(pick)() for _ in range(rng.randint(2, 14))])
    for ids in rng.sample([ids for ids in encoded if len(ids) > 2], 30):
        start = rng.randrange(len(ids) - 1)
        out.append(ids[start : start + rng.randint(1, 40)])
    return out


def user(content):
    return {"role": "user", "content": content}


def assistant(content=None, **more):
    return {"role": "assistant", "content": content} | more


def call(name, arguments, id="call_1"):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def answer(content, id="call_1", **more):
    return {"role": "tool", "tool_call_id": id, "content": content} | more


def tool(name, description, properties=None, required=None, **more):
    parameters = {"type": "object", "properties": properties or {}}
    if required is not None:
        parameters["required"] = required
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters} | more}


WEATHER = tool(
    "get_weather", "Current weather of a city.",
    {"city": {"type": "string", "description": "City name, e.g. Zürich"}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
    ["city"],
)  # fmt: skip
SEARCH = tool(
    "search", "Searches documents \u201cfast\u201d.",
    {
        "query": {"type": "string", "description": "What to look for"},
        "limit": {"type": "integer", "description": "At most this many", "nullable": True},
        "Tags": {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}, "description": "Any of"},
        "filter": {
            "type": "object", "description": "Narrowing", "required": ["from"],
            "properties": {"from": {"type": "string"}, "to": {"type": "string", "description": "end"}, "deep": {"type": "object", "properties": {"x": {"type": "number"}}}},
        },
        "rows": {"type": "array", "items": {"type": "object", "properties": {"id": {"type": "integer"}, "name": {"type": "string"}}, "required": ["id", "name"]}},
        "exact": {"type": "boolean"},
    },
    ["query", "rows"], response={"type": "object", "description": "The hits"},
)  # fmt: skip
NO_PARAMETERS = {"type": "function", "function": {"name": "now", "description": "The time."}}
ODD_TOOL = tool("odd", "Types as lists", {"v": {"type": ["string", "null"], "description": "maybe"}, "w": {"type": "array", "items": {"type": ["integer", "string"], "minimum": 1}}, "z": {"description": "no type"}})
UNTYPED = {"type": "function", "function": {"name": "untyped", "description": "No type", "parameters": {"properties": {"a": {"type": "string"}}}}}
NESTED = {"text": "with \"quotes\" and <|turn>", "Zeta": 1, "alpha": [1, 2.5, None, True, {"k": "v", "B": []}], "big": 1e20, "small": 1.0, "neg": -3, "empty": {}, "Beta": False, "uni": "naïve 漢字 😀"}


def conversations():
    """{name, messages, tools?, kwargs}: fixed ones, then seeded random ones."""
    prompt, off = {"add_generation_prompt": True}, {"add_generation_prompt": False}
    think = prompt | {"enable_thinking": True}
    keep = prompt | {"enable_thinking": True, "preserve_thinking": True}
    system = {"role": "system", "content": "  Be brief.\n"}
    called = [user("Weather in Zürich?"), assistant(tool_calls=[call("get_weather", {"city": "Zürich", "unit": "celsius"})])]
    two_calls = assistant("Both:", tool_calls=[call("get_weather", {"city": "A"}, "c1"), call("search", NESTED, "c2")])
    parts = [{"type": "text", "text": " one "}, {"type": "text", "text": "two\n"}]
    thought = assistant("Four.", reasoning="2 + 2 = 4")
    fixed = [
        ("one_user", [user("Hello")], None, prompt),
        ("no_generation_prompt", [user("Hello")], None, off),
        ("generation_prompt_undefined", [user("Hello")], None, {}),
        ("thinking", [user("Hello")], None, think),
        ("system", [system, user(" padded \n"), assistant(" Hi! "), user("Bye")], None, prompt),
        ("developer_thinking", [{"role": "developer", "content": "D"}, user("Q")], None, think),
        ("system_parts", [{"role": "system", "content": parts}, user("Q")], None, prompt),
        ("system_later", [user("Q"), {"role": "system", "content": "New rule"}, user("R")], None, prompt),
        ("user_parts", [user(parts)], None, prompt),
        ("media_parts", [user([{"type": "image"}, {"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": "x"}}, {"type": "audio"}, {"type": "input_audio"}, {"type": "video"}])], None, prompt),
        ("unicode", [user("Grüße 漢字 😀 \u2581 e\u0301\u00a0!"), assistant("Ελ"), user("\u3000x\u3000")], None, prompt),
        ("empty_content", [user(""), assistant(""), user("   ")], None, prompt),
        ("null_content", [user("a"), assistant(None), user("b")], None, prompt),
        ("special_text", [user("<|turn>model\n<turn|> <bos>{{ x }}{% y %}"), assistant("a<|channel>thought\nb<channel|>c"), user("d")], None, prompt),
        ("stray_thought_marks", [user("q"), assistant("x<channel|>y<|channel>z"), user("q"), assistant("<|channel>only"), user("r")], None, prompt),
        ("assistant_parts", [user("q"), assistant([{"type": "text", "text": " a<|channel>t<channel|> b "}, {"type": "text", "text": "c"}]), user("d")], None, prompt),
        ("ends_with_assistant", [user("q"), assistant("a")], None, prompt),
        ("ends_with_assistant_thinking", [user("q"), thought], None, think),
        ("assistants_in_a_row", [user("q"), assistant("a"), assistant("b"), user("r")], None, prompt),
        ("users_in_a_row", [user("a"), user("b")], None, prompt),
        ("reasoning_before_last_user", [user("q"), thought, user("r")], None, think),
        ("reasoning_after_last_user", [user("q"), assistant("a", reasoning_content="because")], None, off),
        ("tools_only", [user("q")], [WEATHER], prompt),
        ("tools_thinking_system", [system, user("q")], [WEATHER, SEARCH], think),
        ("tools_all_kinds", [user("q")], [SEARCH, NO_PARAMETERS, ODD_TOOL, UNTYPED], prompt),
        ("tools_empty_list", [user("q")], [], prompt),
        ("call_without_result", called, [WEATHER], prompt),
        ("call_with_result", [*called, answer("12 degrees")], [WEATHER], prompt),
        ("call_with_result_thinking", [*called, answer("12 degrees")], [WEATHER], think),
        ("call_result_answer", [*called, answer("12 degrees"), assistant("It is 12."), user("Thanks")], [WEATHER], prompt),
        ("call_result_answer_end", [*called, answer("12"), assistant("It is 12.")], [WEATHER], off),
        ("two_calls_two_results", [user("q"), two_calls, answer("r2", "c2"), answer("r1", "c1"), assistant("done"), user("more")], [WEATHER, SEARCH], prompt),
        ("call_chain", [*called, answer("1"), assistant(tool_calls=[call("search", {"query": "x"}, "c9")]), answer("2", "c9")], [WEATHER, SEARCH], think),
        ("result_names", [*called, answer("1", "other", name="named"), answer("2", "missing")], [WEATHER], prompt),
        ("result_parts", [*called, answer(parts + [{"type": "image"}])], [WEATHER], prompt),
        ("result_mapping", [*called, answer({"temperature": 12})], [WEATHER], prompt),
        ("result_without_call", [user("q"), answer("stray")], None, prompt),
        ("native_responses", [user("q"), assistant("end", tool_calls=[call("get_weather", {"city": "A"})], tool_responses=[{"name": "get_weather", "response": {"t": 12.0, "Sky": "clear", "l": [1, "x"]}}, {"name": "s", "response": "text"}])], [WEATHER], prompt),
        ("arguments_null", [user("q"), assistant(tool_calls=[call("now", None)])], [NO_PARAMETERS], prompt),
        ("arguments_empty", [user("q"), assistant(tool_calls=[call("now", {})]), answer("noon")], [NO_PARAMETERS], prompt),
        ("arguments_string", [user("q"), assistant(tool_calls=[call("now", "{}")])], [NO_PARAMETERS], prompt),
        ("arguments_nested", [user("q"), assistant(tool_calls=[call("search", NESTED)]), answer("ok")], [SEARCH], prompt),
        ("preserved_thinking", [user("q"), assistant(reasoning="look it up", tool_calls=[call("search", {"query": "x"})]), answer("r"), assistant("A"), user("next")], [SEARCH], keep),
        ("dropped_thinking", [user("q"), assistant(reasoning="look it up", tool_calls=[call("search", {"query": "x"})]), answer("r"), assistant("A"), user("next")], [SEARCH], think),
        ("no_messages", [], None, prompt),
        ("unknown_role", [{"role": "critic", "content": "hm"}, user("q")], None, prompt),
    ]  # fmt: skip
    cases = [(name, messages, tools, kwargs) for name, messages, tools, kwargs in fixed] + list(_random_conversations())
    for name, messages, tools, kwargs in cases:
        yield {"name": name, "messages": messages} | ({} if tools is None else {"tools": tools}) | {"kwargs": kwargs}


def _random_conversations():
    rng = random.Random(99)
    texts = ["Hi", " spaced ", "two\nlines", "漢字 😀", "<b>&</b>", "x{{y}}", "", "a<channel|>b"]
    for number in range(14):
        messages = [{"role": rng.choice(["system", "developer"]), "content": rng.choice(texts)}] if rng.random() < 0.4 else []
        for turn in range(rng.randint(1, 3)):
            messages.append(user(rng.choice(texts) if rng.random() < 0.8 else [{"type": "text", "text": rng.choice(texts)}]))
            for _ in range(rng.randint(0, 2)):
                names = rng.sample(["c1", "c2", "c3"], rng.randint(1, 2))
                arguments = {key: NESTED[key] for key in rng.sample(sorted(NESTED), rng.randint(0, 3))}
                more = {"reasoning": "hmm"} if rng.random() < 0.5 else {}
                messages.append(assistant(rng.choice([None, "", "text"]), tool_calls=[call("search", arguments, name) for name in names], **more))
                messages += [answer(rng.choice(texts), name) for name in names if rng.random() < 0.8]
            if rng.random() < 0.7:
                messages.append(assistant(rng.choice(texts)))
        flags = {"add_generation_prompt": rng.random() < 0.7, "enable_thinking": rng.random() < 0.5, "preserve_thinking": rng.random() < 0.3}
        yield f"random_{number}", messages, [SEARCH] if rng.random() < 0.6 else None, flags


RARE = ["**", "batch", "filter upper", "with z", "dict(", "indent(2) }}", "| e }}", "cycle", "previtem", "title", "unique", "round", "{%+",
        "sum", "int }}", "capitalize", "divisibleby", "(1, 2)", "a, b }}"]  # fmt: skip


def snippets():
    """(template, variables) for the engine: the subset chat templates use, its white space and its mistakes."""
    data = {"a": 1, "b": "two", "c": [1, 2, 3], "d": {"k": "v", "A": 2, "b": None}, "e": "", "f": 1.5, "t": True, "n": None}
    for template in [
        "plain\n", "  {{ a }}  \n", "{{ a }}\n\n", "{# comment #}x", "{#- c -#}  x", " x {#- c -#} y", "{{ '{{' }}", "{{ \"q'\" }}",
        "{{ a + 2 }} {{ a - 2 }} {{ 7 // 2 }} {{ 7 / 2 }} {{ 7 % 3 }} {{ 2 * 3 }} {{ -7 // 2 }} {{ 2 ** 5 }}",
        "{{ 'x' + b }} {{ a ~ b }} {{ 'ab' * 2 }}", "{{ b + 1 }}", "{{ [1] + [2] }}",
        "{{ 1 == 1.0 }} {{ 'a' < 'b' }} {{ a != 1 }} {{ not t }} {{ t and n }} {{ n or 'x' }} {{ 1 < 2 < 3 }}",
        "{{ 2 in c }} {{ 'w' in b }} {{ 'k' in d }} {{ 9 not in c }}", "{{ 'yes' if a else 'no' }} {{ 'y' if n }}|",
        "{{ f }} {{ 1e20 }} {{ 1.0 }} {{ 100000000000000000000 }} {{ 0.1 + 0.2 }} {{ 1e-7 }} {{ 3.0 * 2 }}",
        "{{ t }} {{ n }} {{ c }} {{ d }} {{ ['x', \"y'z\"] }} {{ (1, 2) }} {{ [] }} {{ {} }}",
        "{{ c[0] }} {{ c[-1] }} {{ c[1:] }} {{ c[:1] }} {{ b[1] }} {{ b[::-1] }} {{ d['k'] }} {{ d.k }} {{ d.zz }}|{{ c[9] }}|",
        "{{ missing }}|{{ missing is defined }}|{{ a is defined }}", "{{ missing.x }}", "{{ missing + 1 }}", "{{ d.zz.y }}",
        "{{ a is string }} {{ b is string }} {{ d is mapping }} {{ c is sequence }} {{ d is sequence }} {{ b is sequence }} {{ n is none }} {{ t is boolean }} {{ a is number }} {{ f is number }} {{ t is number }} {{ c is iterable }} {{ a is integer }} {{ f is float }}",
        "{{ a is not none }} {{ missing is undefined }} {{ 4 is even }} {{ 3 is odd }} {{ 4 is divisibleby 2 }} {{ a is eq 1 }} {{ t is true }} {{ t is false }}",
        "{{ '  x ' | trim }}|{{ b | upper }} {{ 'AB' | lower }} {{ 'ab cd' | title }} {{ 'ab' | capitalize }}", "{{ b | length }} {{ c | length }} {{ d | length }} {{ c | count }}",
        "{{ missing | default('x') }} {{ e | default('x') }}|{{ e | default('x', true) }} {{ n | default('x') }}",
        "{{ c | join(',') }} {{ c | join }} {{ c | first }} {{ c | last }} {{ c | list }} {{ 'ab' | list }} {{ c | sum }} {{ [3,1,2] | sort }} {{ c | reverse | list }} {{ [1,1,2] | unique | list }}",
        "{% for k, v in d | dictsort %}{{ k }}={{ v }};{% endfor %}", "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{{ d | items | list }}", "{% for k in d %}{{ k }}{% endfor %} {{ d.keys() | list }} {{ d.values() | list }}",
        "{{ ['a', 'b'] | map('upper') | list }} {{ [{'x': 1}, {'x': 2}] | map(attribute='x') | list }}", "{{ [{'x': 1}, {'x': 0}] | selectattr('x') | list }} {{ [{'r': 'a'}, {'r': 'b'}] | selectattr('r', 'equalto', 'b') | list }} {{ [0, 1] | select | list }} {{ [0, 1] | reject | list }}",
        "{{ 'a,b,c'.split(',') }} {{ 'a  b'.split() }} {{ 'a,b,c'.split(',', 1) }} {{ ' x '.strip() }}|{{ 'xxa'.lstrip('x') }} {{ 'axx'.rstrip('x') }}",
        "{{ 'abc'.startswith('a') }} {{ 'abc'.endswith('c') }} {{ 'abc'.replace('b', 'X') }} {{ 'abc' | replace('b', 'X') }} {{ 'aBc'.upper() }} {{ 'aBc'.lower() }} {{ 'abcb'.find('b') }} {{ 'abcb'.count('b') }} {{ 'ab cd'.title() }}",
        "{{ d.get('k') }} {{ d.get('q') }} {{ d.get('q', 5) }}", "{{ c | tojson }} {{ d | tojson }} {{ 'ü\"<\\n' | tojson }} {{ 1.0 | tojson }} {{ n | tojson }}", "{{ d | tojson(indent=2) }}", "{{ {'b': 1, 'a': [true, none]} | tojson(indent=4) }}",
        "{% if a == 1 %}one{% elif a == 2 %}two{% else %}other{% endif %}", "{% if e %}x{% elif c %}c{% endif %}",
        "{% for x in c %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }} {% endfor %}", "{% for x in [] %}x{% else %}none{% endfor %}", "{% for x in c if x > 1 %}{{ x }}{{ loop.index }}{% endfor %}",
        "{% for x in c %}{% if x == 2 %}{% continue %}{% endif %}{{ x }}{% endfor %}", "{% for x in c %}{% if x == 2 %}{% break %}{% endif %}{{ x }}{% endfor %}", "{% for x in c %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }} {% endfor %}", "{% for x in c %}{{ loop.cycle('a', 'b') }}{% endfor %}",
        "{% for x in range(3) %}{% for y in range(x) %}{{ x }}{{ y }} {% endfor %}{% endfor %}", "{{ range(2, 8, 3) | list }} {{ range(3, 0, -1) | list }}", "{% for a, b in [[1, 2], [3, 4]] %}{{ a }}-{{ b }};{% endfor %}", "{% for x in missing %}x{% endfor %}|", "{% for x in n %}x{% endfor %}",
        "{% set x = 5 %}{{ x }}{% for i in c %}{% set x = i %}{{ x }}{% endfor %}{{ x }}", "{% set ns = namespace(v=0) %}{% for i in c %}{% set ns.v = ns.v + i %}{% endfor %}{{ ns.v }}", "{% set x %}block {{ a }}\n{% endset %}[{{ x }}]", "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}",
        "{% macro m(x, y=2) %}<{{ x }}|{{ y }}>{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(y=4, x=5) }}{{ m() }}", "{% macro r(n) %}{{ n }}{% if n > 0 %}{{ r(n - 1) }}{% endif %}{% endmacro %}{{ r(3) }}", "{% macro m(a) %}{{ a }}{{ b }}{{ q }}{% endmacro %}{% set q = 9 %}{{ m(1) }}", "{{ later(1) }}{% macro later(x) %}{{ x }}{% endmacro %}", "{% macro m() %}  x  {% endmacro %}[{{ m() | trim }}]",
        "{% raw %}{{ a }}{% x %}{% endraw %}", "{{ raise_exception('bad ' ~ a) }}", "{% if false %}{{ raise_exception('never') }}{% endif %}ok", "{{ a | nofilter }}", "{{ a is notest }}", "{% if a %}", "{{ a ", "{% endif %}", "{{ unknown_function() }}", "{{ 1 / 0 }}", "{{ c.append(4) }}", "{{ ''.__class__ }}|", "{{ d.pop('k') }}",
        "  {% if a %}\n  x\n  {% endif %}\ny\n", "a\n  {%- if a %} b{% endif -%}  \n c", "{% if a -%}\n  x\n{%- endif %}", "{%- for x in c -%}\n {{- x -}} \n{%- endfor -%}\n", "{{ a -}}   \n  {{- b }}", "x {%+ if a %}y{% endif +%}\nz", "\t{% set q = 1 %}\n{{ q }}\n", "{% for x in c %}\n- {{ x }}\n{% endfor %}\n", "a {% if a %} b {% else %} c {% endif %} d", "line1\n{# c #}\nline2\n", "\n\n{{ a }}\n\n\n",
        "{{ 'a\\nb\\t\\\\\\'' }}", "{{ '漢' + '😀' }} {{ '漢字' | length }} {{ '漢字'[0] }} {{ 'ÀÉ' | lower }} {{ 'straße' | upper }}", "{{ a if a > 1 else b if t else 'z' }}", "{{ (a, b) | join('-') }}", "{{ c | map('string') | join('+') }} {{ '5' | int + 1 }} {{ '2.5' | float }} {{ a | string + 'x' }} {{ f | int }} {{ 2.567 | round(1) }} {{ -3 | abs }}",
        "{{ {'a': 1}.a }} {{ {'a': {'b': 2}}['a']['b'] }} {{ [1, [2, 3]][1][0] }}", "{{ d | dictsort(by='value') if false else 'skip' }}", "{{ ('a' ~ 'b') | upper ~ 'c' }}", "{{ not a == 1 }} {{ not (a == 2) }}", "{{ 'x' 'y' }}", "{{ a, b }}", "{% filter upper %}abc{% endfilter %}", "{% with z = 3 %}{{ z }}{% endwith %}", "{{ c | batch(2) | list }}", "{{ dict(x=1) }}", "{{ none is none }} {{ None }} {{ True }} {{ False }}", "{{ 'a' in ['a'] and 'b' not in ['a'] }}", "{{ 'indent\\nme' | indent(2) }}", "{{ '<a>' | e }} {{ '<a>' | safe }}",
    ]:  # fmt: skip
        yield template, data
