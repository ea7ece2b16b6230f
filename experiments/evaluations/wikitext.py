"""WikiText-2's validation articles: perplexity of words as they were tokenized for it, and bits per byte (Merity et
al. 2016, arXiv:1609.07843).

    jaxlm eval MODEL experiments/evaluations/wikitext.py --window 1024

Of each article every token is scored once, in windows as long as the model was trained for. Word perplexities of
models with other tokenizers can be compared; GPT-2's paper undoes the text's tokenization first, so that its 29.41
is of another text.
"""

from jaxlm.config import Perplexity, Records, Task

ARTICLES = Records(
    path="text/wikitext2_valid.txt",
    split=r"(?m)^ = [^=].* = $",
    source="https://github.com/pytorch/examples (word_language_model/data/wikitext-2, CC BY-SA 3.0)",
)


def tasks() -> tuple[Task, ...]:
    return (Perplexity("wikitext", ARTICLES),)
