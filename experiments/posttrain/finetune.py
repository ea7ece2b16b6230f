"""A trained model learns to answer: prompts and answers, with the loss on the answers.

    jaxlm run experiments/posttrain/finetune.py --init MODEL_OR_RUN --data.paths train.jsonl

A line of the file is {"prompt": ..., "answer": ...} (`--data.prompt` and `--data.answer` name other fields) or
{"messages": [{"role": ..., "content": ...}, ...]}. They are written by the model's own chat template; a model
without one takes `data.form:joined`. Then `jaxlm chat RUN`.

The learning rate is that of full fine-tuning of small models (SmolLM2, arXiv:2502.02737, section 5, takes 3e-4 for
two epochs of its 1.7B; LIMA, arXiv:2305.11206, 1e-5 for 65B). `--train.steps` is for 7,000 prompts of grade-school
mathematics, about one epoch.
"""

from jaxlm.config import (
    AdamW,
    BestFit,
    Conversations,
    Cosine,
    Every,
    Experiment,
    OfInitial,
    Train,
    Where,
)


def experiment() -> Experiment:
    return Experiment(
        name="finetune",
        model=OfInitial(),
        tokenizer=OfInitial(),
        data=Conversations(),
        packing=BestFit(),
        optimizer=AdamW(schedule=Cosine(peak=1e-4, warmup=10, final=0.0), decay=0.0),
        train=Train(steps=100, batch=32, length=512),
        precision="bfloat16",
        where=Where(every=Every(evaluate=50, checkpoint=0)),
    )
