"""Chat templates render as transformers renders them, refuse in words, and reach nothing but the messages."""

import contextlib
import json

import pytest

from jaxlm.config import TokenizerJson
from jaxlm.config.errors import Failure
from jaxlm.tokenizers import given
from jaxlm.tokenizers.chat import render, template_beside
from tests.tokenizers import templates, trained

SYSTEM = {"role": "system", "content": "Answer <b>briefly</b> & in 日本語 👍🏽.  "}
USER = {"role": "user", "content": '  What is "JAX"?\nAnd {{ flax }} </s>'}
ANSWER = {"role": "assistant", "content": "A library.\n\n"}
TALKS = {
    "one turn": [USER],
    "answered": [USER, ANSWER],
    "turns": [USER, ANSWER, USER, ANSWER, USER],
    "system": [SYSTEM, USER],
    "system, turns": [SYSTEM, USER, ANSWER, USER],
}
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
TOOLS = [{"type": "function", "function": {"name": "f", "description": "<é> & 日", "parameters": {"n": [1, None]}}}]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(trained.write("fallback", tmp_path_factory.mktemp("theirs")))


@pytest.mark.parametrize("generation", [False, True])
@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("name", templates.ALL)
def test_as_transformers_renders(theirs, name, talk, generation):
    template, messages = templates.ALL[name], TALKS[talk]
    if name in templates.SYSTEMLESS and messages[0]["role"] == "system":
        with pytest.raises(Failure, match="the chat template refuses these messages: System role not supported"):
            render(template, messages, variables=SPECIAL)
        return
    for tools in (None, TOOLS):
        wanted = theirs.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=generation, tools=tools
        )
        given_too = SPECIAL | ({"tools": tools} if tools else {})
        assert render(template, messages, generation=generation, variables=given_too) == wanted
    assert messages[-1]["content"].strip() in wanted


def test_a_refusal_and_a_mistake_are_told_apart():
    with pytest.raises(Failure, match="refuses these messages: Conversation roles must alternate"):
        render(templates.LLAMA2, [ANSWER], variables=SPECIAL)
    with pytest.raises(Failure, match=r"the chat template is damaged: line 2: .*endfor"):
        render("{% for m in messages %}\n{% endif %}", [USER])
    with pytest.raises(Failure, match=r"the chat template is damaged: line 1: "):
        render("{{ messages", [USER])
    with pytest.raises(Failure, match=r"refuses these messages: .*has no attribute 'content'"):
        render("{{ messages[0].content.strip() }}", [{"role": "user"}])
    with pytest.raises(Failure, match="fails on these messages: TypeError: can only concatenate str"):
        render("{{ messages[0].role + 1 }}", [USER])
    with pytest.raises(Failure, match="fails on these messages: ZeroDivisionError"):
        render("{{ 1 / 0 }}", [USER])


ESCAPES = [
    "{{ messages.__class__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages[0]['content'].format.__globals__ }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__code__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ ('' | attr('__class__')) }}",
    "{{ '{0.__class__}'.format(messages) }}",
    "{{ messages | map(attribute='__class__') | list }}",
    "{{ lipsum.__globals__['os'].popen('id') }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ self.__init__.__globals__ }}",
    "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "{{ namespace(__class__=1) }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'role': 'x'}) }}",
    "{{ range(10000000) | list }}",
]


@pytest.mark.parametrize("template", ESCAPES)
def test_nothing_is_reached_out_of_the_sandbox(template):
    """Refused, or nothing at all is there."""
    messages = [dict(USER)]
    with contextlib.suppress(Failure):
        assert render(template, messages) in ("", "[]", "[Undefined]")
    assert messages == [USER]


def test_objects_are_no_messages():
    class Message(dict):
        def secret(self):
            return "out"

    assert render("{{ messages[0].secret is defined }}", [Message(USER)]) == "False"
    with pytest.raises(Failure, match="takes plain data, as in JSON, not Popen"):
        render("{{ messages }}", [{"role": "user", "content": type("Popen", (), {})()}])
    with pytest.raises(Failure, match="takes plain data, as in JSON, not module"):
        render("{{ json }}", [USER], variables={"json": json})


def test_variables_and_dates():
    assert (
        render("{{ strftime_now('%Y') | length }}{{ tools is none }}{{ depth }}", [], variables={"depth": 3})
        == "4True3"
    )
    assert render("{{ {'b': '<é>', 'a': 1} | tojson }}", []) == '{"b": "<é>", "a": 1}'
    assert render("{{ {'b': 1, 'a': 2} | tojson(sort_keys=true, indent=1) }}", []) == '{\n "a": 2,\n "b": 1\n}'


def test_where_templates_are_read_from(tmp_path):
    assert template_beside(tmp_path) == ""
    several = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    for value, wanted in ((templates.CHATML, templates.CHATML), (several, "D"), (several[:1], ""), (None, "")):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": value}))
        assert template_beside(tmp_path) == wanted
    (tmp_path / "chat_template.jinja").write_text(templates.GEMMA)
    assert template_beside(tmp_path) == templates.GEMMA
    trained.write("fallback", tmp_path)
    assert given(TokenizerJson(str(tmp_path))).template == templates.GEMMA
