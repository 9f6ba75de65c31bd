"""Makes tests/data/text/jinja_cases.json: small templates and what jinja2 3.1.6 renders from them, in the
environment Hugging Face gives to chat templates. `error` is true where jinja2 fails.

Usage: python tools/golden/make_jinja_cases.py  (needs jinja2; the test needs only the file)
"""

import json
import pathlib

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

VARIABLES = json.loads(r"""
{
 "a": [
  3,
  1,
  2
 ],
 "s": "Hello World",
 "d": {
  "b": 1,
  "A": 2,
  "c": null,
  "items": 5
 },
 "f": 1.5,
 "n": null,
 "t": true,
 "u": "stra\u00dfe \u0130\u03a3 \u03a3\u03c2 \u1f48\u0394\u03a5\u03a3\u03a3\u0395\u038e\u03a3 \u01c6 \ufb01",
 "big": 1e+20,
 "small": 1e-07,
 "l": [
  {
   "x": 1,
   "y": "q"
  },
  {
   "x": 2
  },
  {
   "x": 1,
   "y": null
  }
 ],
 "e": "",
 "q": "it's",
 "qq": "it's \"x\"",
 "nl": "a\nb\r\nc\u000bd\u2028e",
 "m": [
  [
   1,
   [
    2,
    {
     "k": [
      null,
      true,
      1.0
     ]
    }
   ]
  ]
 ],
 "i": 7,
 "neg": -7,
 "emo": "\ud83d\udc4d\ud83c\udffd \u00e9\u0301",
 "ctl": "\u0000\u001b\u007f\u0085\u00a0\u200b\ue000"
}
""")

ONE_LINE = r"""
{{ a }} | {{ d }} | {{ s }} | {{ f }} | {{ n }} | {{ t }} | {{ u }} | {{ big }} | {{ small }} | {{ m }}
{{ q }}{{ [q] }}{{ [qq] }}{{ [nl] }}{{ [emo, ctl] }}
{{ u|upper }} {{ u|lower }} {{ u|title }} {{ u|capitalize }} {{ u.title() }} {{ u.capitalize() }} {{ u.upper() }}
{{ s|length }} {{ emo|length }} {{ emo[0] }} {{ emo[-1] }} {{ emo[::-1] }} {{ s[2:5] }} {{ s[-3:] }} {{ s[::2] }} {{ s[5:2:-1] }} {{ s[100:] }} {{ s[:-100] }}
{{ a[0] }}{{ a[-1] }}{{ a[5] }}{{ a[1:] }}{{ a[::-1] }}{{ a|sort }}{{ a|sort(reverse=true) }}{{ a|first }}{{ a|last }}{{ a|reverse|list }}{{ s|reverse }}
{{ d|dictsort }}{{ d|dictsort(true) }}{{ d|dictsort(reverse=true) }}
{{ d.items() }}{{ d['items'] }}{{ d.keys() }}{{ d.values() }}{{ d|items|list }}{{ d.get('zz') }}{{ d.get('zz',3) }}{{ d.b }}{{ d.zz }}{{ d['A'] }}
{{ 1+2 }} {{ 7//2 }} {{ -7//2 }} {{ 7%3 }} {{ -7%3 }} {{ 7/2 }} {{ 2**10 }} {{ 2**-1 }} {{ 2**0.5 }} {{ 7.5//2 }} {{ -7.5%2 }} {{ 7.5%-2 }} {{ 1e16 }} {{ 1e15 }} {{ 123456789.123 }} {{ 0.0001 }} {{ 0.00001 }} {{ 1/3 }} {{ 100.0 }} {{ -0.0 }}
{{ -1|abs }} {{ -i|abs }} {{ neg|abs }} {{ 2.5|round }} {{ 3.5|round }} {{ 2.675|round(2) }} {{ 2.675|round(1,'ceil') }} {{ 7|round }} {{ 2.1|round(0,'floor') }} {{ 1234.5|round(-2) }}
{{ '3'|int }} {{ '3.7'|int }} {{ 'x'|int }} {{ 'x'|int(5) }} {{ ' 12 '|int }} {{ '1_000'|int }} {{ 'ff'|int(base=16) }} {{ 3.9|int }} {{ none|int }} {{ true|int }} {{ '1e3'|int }} {{ '-5'|int }} {{ '+5'|int }}
{{ '3.5'|float }} {{ 'x'|float }} {{ 3|float }} {{ 'inf'|float }} {{ none|float(2) }} {{ '1_0.5'|float }}
{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 }} {{ 1 == true }} {{ 'a' < 'b' }} {{ [1,2] < [1,3] }} {{ (1,2) == (1,2) }} {{ [1] == (1,) }} {{ none == none }} {{ nope == nope2 }} {{ {'a':1} == {'a':1.0} }}
{{ 'a' in s }} {{ 'Hello' in s }} {{ 3 in a }} {{ 'b' in d }} {{ 'z' not in d }} {{ 1 in nope }} {{ none in a }}
{{ n is none }} {{ n is defined }} {{ nope is defined }} {{ nope is undefined }} {{ nope is sequence }} {{ d is mapping }} {{ d is sequence }} {{ s is sequence }} {{ a is sequence }} {{ a is iterable }} {{ 5 is iterable }} {{ n is sequence }} {{ d.items() is sequence }} {{ d.items() is iterable }}
{{ 1 is number }} {{ true is number }} {{ true is integer }} {{ 1 is integer }} {{ 1.0 is float }} {{ true is boolean }} {{ 1 is boolean }} {{ 't' is string }} {{ true is true }} {{ 1 is true }} {{ false is false }} {{ 3 is odd }} {{ 4 is even }} {{ 6 is divisibleby 3 }} {{ 6 is divisibleby(4) }} {{ 3 is in a }} {{ 3 is eq 3 }} {{ 3 is gt 2 }} {{ 'A' is upper }} {{ 'a1' is lower }} {{ range is callable }}
{{ a|join }} {{ a|join(', ') }} {{ l|join('-', attribute='x') }} {{ l|map(attribute='x')|list }} {{ l|map(attribute='y', default='D')|list }} {{ ['a','B']|map('upper')|list }} {{ ['a','B']|map('upper')|join('|') }}
{{ l|selectattr('y')|list }} {{ l|selectattr('x','equalto',1)|list }} {{ l|rejectattr('x','eq',1)|list }} {{ l|selectattr('y','defined')|list }} {{ a|select('odd')|list }} {{ a|reject('gt',1)|list }} {{ [0,1,'',2]|select|list }}
{{ a|sum }} {{ l|sum(attribute='x') }} {{ a|min }} {{ a|max }} {{ ['b','A']|min }} {{ ['b','A']|sort }} {{ ['b','A','a']|unique|list }} {{ []|min }} {{ l|map(attribute='x')|unique|list }} {{ l|sort(attribute='x') }}
{{ s|replace('o','0') }} {{ s|replace('o','0',1) }} {{ s.replace('l','L') }} {{ s.replace('','-') }} {{ s|replace('','-',3) }} {{ 5|replace(5,6) }} {{ 'aaa'.replace('aa','b') }}
{{ s.split() }} {{ 'a,b,,c'.split(',') }} {{ 'a,b,,c'.split(',',1) }} {{ ' a  b '.split() }} {{ ' a  b c '.split(none,1) }} {{ ''.split() }} {{ ''.split(',') }} {{ 'a,b,c'.rsplit(',',1) }} {{ ' a b c '.rsplit(none,1) }} {{ nl.splitlines() }} {{ nl.splitlines(true) }}
{{ '  x '.strip() }}|{{ '  x '.lstrip() }}|{{ '  x '.rstrip() }}|{{ 'xxaxx'.strip('x') }}|{{ '  x '|trim }}|{{ 'abcxcba'|trim('abc') }}|{{ '\u3000x\x1f'|trim }}|
{{ s.startswith('He') }} {{ s.startswith(('x','H')) }} {{ s.endswith('d') }} {{ s.find('o') }} {{ s.find('zz') }} {{ s.rfind('o') }} {{ s.find('o',5) }} {{ s.count('l') }} {{ s.index('W') }} {{ 'prefix-x'.removeprefix('prefix-') }} {{ '12'.isdigit() }} {{ ''.isdigit() }}
{{ s|tojson }} {{ d|tojson }} {{ m|tojson }} {{ emo|tojson }} {{ ctl|tojson }} {{ qq|tojson }} {{ m|tojson(indent=2) }} {{ {}|tojson(indent=2) }} {{ [[],{}]|tojson(indent=4) }} {{ d|tojson(sort_keys=true) }} {{ d|tojson(separators=(',',':')) }} {{ {1:2, none:3, true:4, 1.5:5}|tojson }} {{ emo|tojson(ensure_ascii=true) }} {{ d|tojson(indent='\t') }} {{ [1.0,1e20,-0.0]|tojson }} {{ (1,2)|tojson }}
{{ nl|indent }} {{ nl|indent(2,true) }} {{ 'a\n\nb'|indent(2) }} {{ 'a\n\nb'|indent(2,blank=true) }} {{ 'a\n'|indent('>>') }}
{{ nope|default('D') }} {{ ''|default('D') }} {{ ''|default('D',true) }} {{ none|default('D') }} {{ nope|d('x') }} {{ nope|default }}
{{ 'a' ~ 1 ~ none ~ nope ~ 1.0 ~ [1] }} {{ 'a' * 3 }} {{ [1] * 2 }} {{ 2 * 'ab' }} {{ [1]+[2] }} {{ (1,)+(2,) }}
{{ [none, none] | sort }}{{ [{'y': 2}, {'y': 1}, {'y': 3}] | sort(attribute='y,x') }}{{ 'ba' | sort(attribute='q') }}
{{ false | map('upper') | list }}{{ none | map(attribute='x') | list }}{{ 0 | select | list }}
{{ [1] | indent }}
{{ 5 | indent }}
{{ 'x' if true }} {{ 'x' if false }} {{ 'x' if false else 'y' }} {{ ('x' if false) is defined }}
{{ (1,) }} {{ () }} {{ (1,2) }} {{ {'a':1,'b':[1,2]} }} {{ {} }} {{ [] }} {{ {1:2} }} {{ {'a':1,'a':2} }}
{{ true and 'x' }} {{ '' or 'y' }} {{ not 'x' }} {{ not nope }} {{ nope or 3 }} {{ 0 or nope or 'z' }}
{{ range(5) }} {{ range(5)|list }} {{ range(1,10,3)|list }} {{ range(5,0,-2)|list }} {{ range(0) }} {{ range(3)[1] }} {{ range(2,8)[1:3]|list }} {{ range(1,9,2) }} {{ range(4)|length }}
{% for x in a %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('o','e') }}{{ loop.changed(x) }}{{ loop.depth }},{% endfor %}
{% for x in a if x > 1 %}{{ loop.index }}{{ x }}{{ loop.last }}{{ loop.length }}{% else %}none{% endfor %}
{% for x in [] %}x{% else %}empty{% endfor %}
{% for x in a %}{% break %}{% else %}e{% endfor %}{% for x in a %}{% continue %}{% else %}e{% endfor %}{% for x in a %}{% if x < 2 %}{% break %}{% endif %}{% else %}e{% endfor %}{% for x in a %}{% if x < 3 %}{% continue %}{% endif %}{% else %}e{% endfor %}
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{{ k }}{% endfor %}{% for c in s %}{{ c }}.{% endfor %}
{% for k, v in d|dictsort %}{{ k }}{{ v }}{% endfor %}{% for (p, (q2, r)) in [(1,(2,3))] %}{{ p }}{{ q2 }}{{ r }}{% endfor %}
{% for x in a %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% if x == 2 %}{% break %}{% endif %}{% endfor %}
{% set x = 1 %}{% for i in a %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}
{% set ns = namespace(x=1) %}{% for i in a %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}{{ ns.zz }}{{ ns['x'] }}
{% set a2, b2 = 1, 2 %}{{ a2 }}{{ b2 }}{% set c2 %}hi {{ a2 }}{% endset %}{{ c2 }}{% set c3 | upper %}hi{% endset %}{{ c3 }}
{% macro m(x, y=2, z=y) %}{{ x }}{{ y }}{{ z }}{% endmacro %}{{ m(1) }}{{ m(1,3) }}{{ m(x=5,y=6) }}{{ m() }}{{ m(1, z=9)|upper }}
{% macro r(n) %}{{ n }}{% if n > 0 %}{{ r(n-1) }}{% endif %}{% endmacro %}{{ r(5) }}
{% macro late() %}{{ zz }}{% endmacro %}{% set zz = 4 %}{{ late() }}
{% if a %}x{% elif b %}y{% else %}z{% endif %}{% if not a %}x{% elif nope %}y{% else %}z{% endif %}
{% raw %}{{ x }} {% if %}{% endraw %} {% raw -%}   a {{ b }} {%- endraw %}
{# comment {{ x }} #}x{#- c -#}  y
  {% if true %}
  line
  {% endif %}
end
{%- if true -%}  x  {%- endif -%}  y
  {%+ if true %}x{% endif +%}
z
{{ "a" "b" 'c' }} {{ 'a\tb\x41\u00e9\'\"\\ \q' }}
{{ 1_000 }} {{ 1.5e3 }} {{ 1e-3 }} {{ 10 }} {{ a.0 }} {{ 1.0 }}
{{ s['__class__'] }}{{ d['__class__'] }}
{{ nope.x }}
{{ d.zz.y }}
{{ d['zz']['y'] }}
{{ n.x }}{{ n['x'] }}
{{ 5['x'] }}{{ s['x'] }}{{ a['x'] }}
{{ nope() }}
{{ 'a' + 1 }}
{{ 1 + none }}
{{ nope + 1 }}
{{ [] < 3 }}
{{ 1 / 0 }}
{{ 'a' in 5 }}
{{ 5 in 'a' }}
{{ none|length }}
{{ a|dictsort }}
{{ {'a':1}|dictsort|map('first')|list }}
{% for a1, b1 in [1] %}{% endfor %}
{{ a.append(1) }}
{{ d.update({}) }}
{{ nope|upper }}{{ nope|list }}{{ nope|join }}{{ nope|first }}{{ nope|tojson }}
{{ nope|int }}
{{ nope|string }}|{{ none|string }}|{{ 1.0|string }}|{{ [nope] }}
{{ raise_exception('boom') }}
{{ '<a href="x">\'&'|e }} {{ 'x'|safe }}
{{ (a|map('string')|list)[0] }} {{ a|map('string')|join(',')|upper }}
{{ {'a': {'b': 1}}|tojson|length }} {{ dict(a=1, b=2) }} {{ dict({'x':1}, y=2) }} {{ namespace(a=1).a }}
{% with q1 = 1, q3 = 2 %}{{ q1 }}{{ q3 }}{% set q1 = 5 %}{{ q1 }}{% endwith %}{{ q1 }}
{% filter upper %}abc {{ s }}{% endfilter %}
{% for x in range(3) %}{% for y in range(2) %}{{ loop.depth }}{{ x }}{{ y }}{% endfor %}{% endfor %}
{% for x in a %}{{ x }}{% set found = true %}{% endfor %}{{ found }}
{% if true %}{% set inner = 3 %}{% endif %}{{ inner }}
{% set ns=namespace(stop=false) %}{% for x in [1,2,3,4] if not ns.stop %}{{ x }}{% if x == 2 %}{% set ns.stop = true %}{% endif %}{% endfor %}
{{ "a" if n is none and t is true else "b" }} {{ n is not none }} {{ not n is none }}
{{ t and n is not none or s is string }}
{{ d.b if d.b is defined else 'x' }}{{ d['b'] is defined and d['b'] }}
{{ [1,2,3][1:]|first }} {{ (a|length) > 2 }} {{ a|length > 2 }} {{ a|length - 1 }} {{ -a|length if false else 1 }}
{{ s|upper|lower|title }} {{ s|title }} {{ "foo-bar (baz) it's"|title }} {{ "foo-bar it's".title() }}
{{ [1,none,'x']|join(',') }} {{ s.join(['a','b']) }} {{ ','.join(a|map('string')) }}
{{ ','.join(a) }}
{{ 'abc' is string and 'abc' is not mapping }}
{{ l[0].x }} {{ l[1].y }} {{ l.0.x }} {{ l[-1]['y'] }} {{ (l|last)['x'] }}
{{ 1 if a else 2 if s else 3 }} {{ (1 if not a else 2 if s else 3) }}
{{ {'a':1}.a }} {{ {'get':1}['get'] }} {{ {'get':1}.get('get') }}
{{ x.y.z }}
{{ '\n' in nl }} {{ nl|replace('\n','<br>') }} {{ nl.split('\n') }}
{{ u in u }} {{ u.split('Σ') }} {{ emo.split(' ') }} {{ u|length }} {{ u[3:7] }}
{{ 'ΑΣ'|lower }} {{ 'ΑΣ.'|lower }} {{ 'Σ'|lower }} {{ 'ΑΣΑ'|lower }} {{ 'ß'|upper }} {{ 'ŉ'|capitalize }} {{ 'ǆx'|title }}
{{ 18446744073709551615 }}
{{ 9007199254740993 * 3 }} {{ 2**63 }} {{ 2**64 - 1 }}
{{ true + 1 }} {{ true * 3 }} {{ -true }} {{ +3 }} {{ --3 }} {{ - 3 ** 2 }} {{ 2 ** 3 ** 2 }} {{ 2 * 3 + 4 ~ 'x' }} {{ 1 - 1 - 1 }} {{ 8 / 4 / 2 }}
{{ "a,b" | replace(",", ";") | upper }}{{ "x" ~ "y" | upper }}
{{ a == [3,1,2] }} {{ d == {'b':1,'A':2,'c':none,'items':5} }} {{ d != {} }}
{{ loop }}
{{ {'x': none}|default('q') }} {{ none is sameas none }} {{ 1 is sameas true }}
{% set t2 = (1, 2) %}{{ t2[0] }}{{ t2|length }}{{ t2 is sequence }}{{ t2|list }}
{{ nope is none }} {{ nope is string }} {{ nope is mapping }} {{ nope is iterable }} {{ nope|length }} {{ nope == '' }} {{ nope|trim }}
{{ [[1,2],[3]]|sum(start=[]) }} {{ [1.5,2]|sum }} {{ 3|string|length }} {{ 'abc'|list }} {{ d|list }} {{ d|length }} {{ d|first }} {{ d|last }} {{ d|join('+') }}
{{ '' is defined }}{{ 'abc'[1] }}{{ 'abc'[5] }}{{ 'abc'[-4] }}
{%- set x -%}  a  {%- endset -%}[{{ x }}]
{{ '%' }} {{ '{{' }} {{ "}}" }} {{ {'a':{'b':2}}['a']['b'] }} {{ {'a':{}} }}
{{ a | map('float') | list }} {{ a|map('int')|sum }} {{ ['x','y']|map('replace','x','z')|list }} {{ l|map('length')|list }} {{ ['1','a']|map('int', default=9)|list }}
{{ l|map(attribute='x')|sum }} {{ [{'f':{'n':'q'}}]|map(attribute='f.n')|list }} {{ [[1,2]]|map(attribute=1)|list }} {{ [[1,2]]|map('last')|list }}
"""

MORE = [
    "  {% if true %}\n  line\n  {% endif %}\nend\n",
    "{% for i in [1,2] %}\n  {{ i }}\n{% endfor %}\n\n",
    "a\n  {#- c #}\nb\n  {# d #}\n c",
    "x {%- set y = 1 +%}\n z",
    "  {{ 1 }}  \n  {%- if true %} a {% endif -%}  \n\n b",
    "{% raw %}\n a\n  {% endraw %}\nb",
    "  {%+ if true %}\nq\n  {%+ endif %}\n",
    "\r\na\r{% if true %}\r\nb{% endif %}\n\n",
    "{{ 'a' -}}   \n  b {{- 'c' }}\n",
    "{% set x %}\n  a\n  {% endset %}\n[{{ x }}]",
    "a{# x\ny #}\n  {% if true %}b{% endif %}\n",
    "  {#- x -#}  {% if 1 %}\n {% endif %}",
    "{% if true %}\n\n\na{% endif %}",
    "{{ {'a':\n1}\n}}\n",
    "{{ 1\n}}{%\nif 1\n%}x{%endif%}",
    "x{{-1}}y",
    "x{{+1}}",
    "{%if 1%}a{%endif%}",
    "{{'x'}}{{ \"y\" }}",
    "{% raw -%}\n  x\n  {%- endraw -%}\n y",
    "{#- only -#}\n",
    "{%- for x in [1] -%}\n a \n{%- endfor %}\n",
    "{{ 'x' }}\n\n"
]


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def main():
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    cases = []
    for template in ONE_LINE.strip("\n").split("\n") + MORE:
        try:
            cases.append({"template": template, "expected": environment.from_string(template).render(**VARIABLES)})
        except Exception:  # any refusal of jinja2 is a refusal
            cases.append({"template": template, "error": True})
    path = pathlib.Path(__file__).parents[2] / "tests/data/text/jinja_cases.json"
    path.write_text(json.dumps({"variables": VARIABLES, "cases": cases}, ensure_ascii=False, indent=0) + "\n")
    print(f"{path}: {len(cases)} cases")


if __name__ == "__main__":
    main()
