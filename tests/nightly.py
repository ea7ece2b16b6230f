"""Tests that run at night only, as others cover what is in them: patterns of their ids.

The suite for every change stays well below half an hour on two cores. Marks in the files themselves say the same of
single cases; here stand whole families of them.
"""

PATTERNS = (
    "experiments/test_scaling.py::test_two_processes_beside_one",
    "experiments/test_attention.py::test_documents_of_a_row_and_a_window",
    "drills/test_finetune.py::test_what_was_tuned_is_used",
    "drills/test_bad_input.py::test_damaged_newest_checkpoint",
    "train/test_objectives.py::test_meshes_and_micro_batches_agree[[]span_corruption]",
    "train/test_expert_meshes.py::test_meshes_agree[[]replica*",
    "train/test_expert_meshes.py::test_meshes_agree[[]expert*",
    "train/test_meshes.py::test_meshes_agree[[]data 2, context 2, tensor 2]",
    "train/test_meshes.py::test_any_optimizer_is_sharded_saved_and_resumed[[]Adafactor]",
    "train/test_meshes.py::test_any_optimizer_is_sharded_saved_and_resumed[[]Lion]",
    "families/test_steps.py::test_meshes_agree*",
    "models/test_ways.py::test_unrolled_and_recomputed[[]wired*",
    "models/test_ways.py::test_eight_devices[[]wired*",
    "models/test_ways.py::test_eight_devices[[]rwkv*",
    "models/test_ways.py::test_op_by_op",
    "models/test_mixtures.py::test_documents_do_not_see_each_other",
    "planning/test_small_plans.py::test_nothing_has_grown[[]v6e*",
    "interop/test_encoder_decoders.py::test_greedy_texts_are_those_of_transformers[[]bart*",
    "contracts/test_contracts_close.py::test_train[[]*-lora-8]",
    "contracts/test_contracts_close.py::test_train[[]*-int8-8]",
    "contracts/test_contracts_close.py::test_prefill_and_decode[[]*int8*",
    "objectives/test_optimum.py::test_what_is_hidden_is_what_is_counted[[]ul2]",
    "objectives/test_optimum.py::test_what_is_hidden_is_what_is_counted[[]prefix_lm]",
    "objectives/test_optimum.py::test_what_is_hidden_is_what_is_counted[[]permuted]",
    "layers/test_positions.py::test_one_word_in_any_architecture[[]encoder*",
)
FAMILIES = ("llama", "gpt2", "mixtral", "gemma2", "bloom", "bert", "albert", "deberta", "t5", "bart", "rwkv")
"""Of those that are exchanged, what is compared with transformers for every change."""
