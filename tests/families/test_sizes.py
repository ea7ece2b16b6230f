"""Parameter counts of the literature, exact where the weights are public."""

import dataclasses
import math
import subprocess
import sys

import jax
import pytest

from jaxlm.config import NoPosition, TransformerXl
from jaxlm.config.errors import UsageError
from jaxlm.config.flops import active_parameters, parameters
from jaxlm.families import (
    albert,
    bart,
    bert,
    bloom,
    codegen,
    deberta,
    distilbert,
    electra,
    falcon,
    gemma,
    gemma2,
    gemma3,
    gopher,
    gpt2,
    gpt3,
    gpt_bigcode,
    gpt_neox,
    gptj,
    llama,
    mixtral,
    modernbert,
    mt5,
    olmo2,
    opt,
    palm,
    phi3,
    qwen2,
    qwen3,
    qwen3_moe,
    roberta,
    rwkv,
    sizes,
    starcoder2,
    t5,
)
from jaxlm.models import build
from tests.base import experiment


@pytest.mark.parametrize(
    ("model", "count"),
    [
        (llama.llama1("7b"), 6_738_415_616),
        (llama.llama1("13b"), 13_015_864_320),
        (llama.llama1("33b"), 32_528_943_616),
        (llama.llama1("65b"), 65_285_660_672),
        (llama.mistral_7b(), 7_241_732_096),
        (llama.llama2("7b"), 6_738_415_616),
        (llama.llama2("13b"), 13_015_864_320),
        (llama.llama2("70b"), 68_976_648_192),
        (llama.llama3("8b"), 8_030_261_248),
        (llama.llama3("70b"), 70_553_706_496),
        (llama.llama32("1b"), 1_235_814_400),
        (llama.llama32("3b"), 3_212_749_824),
        (llama.llama3("405b"), 405_853_388_800),
        (mixtral.mixtral("8x7b"), 46_702_792_704),
        (mixtral.mixtral("8x22b"), 140_620_634_112),
        (qwen3.qwen3("0.6b"), 596_049_920),
        (qwen3.qwen3("8b"), 8_190_735_360),
        (qwen3.qwen3("32b"), 32_762_123_264),
        (gpt_neox.pythia("70m"), 70_426_624),
        (gpt_neox.pythia("160m"), 162_322_944),
        (gpt_neox.pythia("410m"), 405_334_016),
        (gpt_neox.pythia("1b"), 1_011_781_632),
        (gpt_neox.pythia("1.4b"), 1_414_647_808),
        (gpt_neox.pythia("2.8b"), 2_775_208_960),
        (gpt_neox.pythia("6.9b"), 6_857_302_016),
        (gpt_neox.pythia("12b"), 11_846_072_320),
        (gpt_neox.gpt_neox_20b(), 20_554_567_680),
        (gptj.gptj_6b(), 6_050_882_784),
        (codegen.codegen("350m"), 356_712_448),
        (codegen.codegen("2b"), 2_779_356_160),
        (codegen.codegen("6b"), 7_064_213_504),
        (codegen.codegen("16b"), 16_032_155_648),
        (falcon.falcon("7b"), 6_921_720_704),
        (falcon.falcon("40b"), 41_303_293_952),
        (falcon.falcon_rw_1b(), 1_311_625_216),
        (bloom.bloom("560m"), 559_214_592),
        (bloom.bloom("1b1"), 1_065_314_304),
        (bloom.bloom("1b7"), 1_722_408_960),
        (bloom.bloom("3b"), 3_002_557_440),
        (bloom.bloom("7b1"), 7_069_016_064),
        (bloom.bloom("176b"), 176_247_271_424),
        (olmo2.olmo2("7b"), 7_298_617_344),
        (olmo2.olmo2("13b"), 13_716_198_400),
        (olmo2.olmo2("32b"), 32_234_279_936),
        (qwen3_moe.qwen3_moe("30b-a3b"), 30_532_122_624),
        (qwen3_moe.qwen3_moe("235b-a22b"), 235_093_634_560),
        (gemma.gemma("2b"), 2_506_172_416),
        (gemma.gemma("7b"), 8_537_680_896),
        (gemma2.gemma2("2b"), 2_614_341_888),
        (gemma2.gemma2("9b"), 9_241_705_984),
        (gemma2.gemma2("27b"), 27_227_128_320),
        (gemma3.gemma3("1b"), 999_885_952),
        (opt.opt("125m"), 125_239_296),
        (opt.opt("1.3b"), 1_315_758_080),
        (opt.opt("2.7b"), 2_651_596_800),
        (opt.opt("6.7b"), 6_658_473_984),
        (opt.opt("13b"), 12_853_473_280),
        (opt.opt("30b"), 29_974_540_288),
        (opt.opt("66b"), 65_719_701_504),
        (opt.opt("175b"), 174_604_468_224),
        (qwen2.qwen2("0.5b"), 494_032_768),
        (qwen2.qwen2("1.5b"), 1_543_714_304),
        (qwen2.qwen2("7b"), 7_615_616_512),
        (qwen2.qwen2("72b"), 72_706_203_648),
        (phi3.phi3_mini(), 3_821_079_552),
        (starcoder2.starcoder2("3b"), 3_030_371_328),
        (starcoder2.starcoder2("7b"), 7_173_923_840),
        (starcoder2.starcoder2("15b"), 15_957_889_024),
        (gpt_bigcode.starcoder_15b(), 15_517_456_384),
        (rwkv.rwkv4("169m"), 169_342_464),
        (rwkv.rwkv4("430m"), 430_397_440),
        (rwkv.rwkv4("1.5b"), 1_515_106_304),
        (rwkv.rwkv4("3b"), 2_984_627_200),
        (rwkv.rwkv4("7b"), 7_392_649_216),
        (rwkv.rwkv4("14b"), 14_148_597_760),
        (rwkv.rwkv5("0.4b"), 461_721_600),
        (rwkv.rwkv5("1.6b"), 1_577_754_624),
        (rwkv.rwkv5("3b"), 3_062_999_040),
        (rwkv.rwkv5("7b"), 7_518_044_160),
        (rwkv.rwkv6("1.6b"), 1_599_873_024),
        (rwkv.rwkv6("3b"), 3_099_863_040),
        (rwkv.rwkv6("7b"), 7_635_746_816),
        (rwkv.rwkv7("0.1b"), 191_034_624),
        (rwkv.rwkv7("0.4b"), 450_767_872),
        (rwkv.rwkv7("1.5b"), 1_527_404_544),
        (rwkv.rwkv7("2.9b"), 2_947_735_040),
        (gpt2.gpt2("124m"), 124_439_808),
        (gpt2.gpt2("355m"), 354_823_168),
        (gpt2.gpt2("774m"), 774_030_080),
        (gpt2.gpt2("1.5b"), 1_557_611_200),
        (bert.bert("base"), 109_514_298),
        (bert.bert("large"), 335_174_458),
        (roberta.roberta("base"), 124_697_433),
        (roberta.roberta("large"), 355_412_057),
        (distilbert.distilbert_base(), 66_985_530),
        (electra.electra("small"), 13_549_057),
        (electra.electra("base"), 109_483_009),
        (electra.electra("large"), 335_142_913),
        (albert.albert("base"), 11_221_680),
        (albert.albert("large"), 16_795_824),
        (albert.albert("xlarge"), 54_821_040),
        (albert.albert("xxlarge"), 206_368_944),
        (modernbert.modernbert("base"), 149_655_232),
        (modernbert.modernbert("large"), 395_881_664),
        (deberta.deberta_v3("xsmall"), 70_958_820),
        (deberta.deberta_v3("small"), 142_024_548),
        (deberta.deberta_v3("base"), 184_551_780),
        (deberta.deberta_v3("large"), 435_191_908),
        (t5.t5("small"), 60_506_624),
        (t5.t5("base"), 222_903_552),
        (t5.t5("large"), 737_668_096),
        (t5.t5("3b"), 2_851_598_336),
        (t5.t5("11b"), 11_307_321_344),
        (t5.t5_1_1("small"), 76_961_152),
        (t5.t5_1_1("base"), 247_577_856),
        (t5.t5_1_1("large"), 783_150_080),
        (t5.t5_1_1("xl"), 2_849_757_184),
        (t5.t5_1_1("xxl"), 11_135_332_352),
        (mt5.mt5("small"), 300_176_768),
        (mt5.mt5("base"), 582_401_280),
        (mt5.mt5("large"), 1_229_581_312),
        (mt5.mt5("xl"), 3_742_619_648),
        (mt5.mt5("xxl"), 12_921_057_280),
        (bart.bart("base"), 139_420_416),
        (bart.bart("large"), 406_291_456),
        (bert.minilm_l6(), 22_713_216 - 384 * 385),  # without its pooler
    ],
)
def test_public_weights(model, count):
    assert parameters(model)["total"] == count


PAPERS = [
    (gpt3.gpt3("125m"), "0.125"),
    (gpt3.gpt3("760m"), "0.76"),
    (gpt3.gpt3("1.3b"), "1.3"),
    (gpt3.gpt3("2.7b"), "2.7"),
    (gpt3.gpt3("6.7b"), "6.7"),
    (gpt3.gpt3("13b"), "13.0"),
    (gpt3.gpt3("175b"), "175.0"),
    (gpt3.jurassic1_178b(), "178"),
    (gopher.gopher("44m"), "0.044"),
    (gopher.gopher("117m"), "0.117"),
    (gopher.gopher("417m"), "0.417"),
    (gopher.gopher("1.4b"), "1.4"),
    (gopher.gopher("7.1b"), "7.1"),
    (gopher.gopher("280b"), "280"),
    (gopher.chinchilla_70b(), "70"),
    (palm.palm("8b"), "8.63"),
    (palm.palm("62b"), "62.50"),
    (palm.palm("540b"), "540.35"),
]


@pytest.mark.parametrize(("model", "billions"), PAPERS)
def test_papers(model, billions):
    """Within 1 % of what is printed, or what is printed when rounded to as many digits."""
    count, digits = parameters(model)["total"] / 1e9, len(billions.partition(".")[2])
    assert count == pytest.approx(float(billions), rel=0.01) or f"{count:.{digits}f}" == billions


def test_rwkv_by_the_papers_formulas():
    """Of D features, L layers and V tokens, as arXiv:2305.13048 and arXiv:2404.05892 print them."""
    for make, found, per_layer in (
        (rwkv.rwkv4, rwkv.SIZES4, 11),
        (rwkv.rwkv5, rwkv.SIZES5, 14),
        (rwkv.rwkv6, dict(list(rwkv.SIZES6.items())[:2]), 464),
    ):
        for size, (layers, embed, *_) in found.items():
            model = make(size)
            formula = 13 * embed**2 * layers + per_layer * embed * layers + 4 * embed + 2 * embed * model.vocab
            assert parameters(model)["total"] == formula


@pytest.mark.parametrize("model", [rwkv.rwkv4("14b"), rwkv.rwkv5("7b"), rwkv.rwkv6("7b"), rwkv.rwkv7("2.9b")])
def test_rwkv_is_built_as_counted(model):
    built = jax.eval_shape(lambda: build(model, jax.random.key(0)))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(built)) == parameters(model)["total"]


def test_what_is_printed_otherwise():
    """GPT-3's "350M" is GPT-2's 355M in longer rows, and its "1.3B" has not the 24 heads that are printed."""
    assert parameters(gpt3.gpt3("350m"))["total"] == 354_823_168 + 1024 * 1024
    model = gpt3.gpt3("1.3b")
    printed = dataclasses.replace(model.block.attention, heads=24, kv_heads=24)
    model = dataclasses.replace(model, block=dataclasses.replace(model.block, attention=printed))
    assert parameters(model)["total"] > 1.5e9


BUILT = [model for model, _ in PAPERS if model.layers < 80 or model.embed > 16_000]
BUILT += [t5.t5("small"), t5.t5_1_1("small"), bart.bart("base")]


@pytest.mark.parametrize("model", BUILT)
def test_papers_are_built_as_counted(model):
    """Every leaf of the abstract model; Gopher's thirteenth matrix is among them."""
    built = jax.eval_shape(lambda: build(model, jax.random.key(0)))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(built)) == parameters(model)["total"]
    if isinstance(model.position, TransformerXl):
        less = parameters(dataclasses.replace(model, position=NoPosition()))["total"]
        square, biases = model.embed**2, 2 * model.embed
        assert parameters(model)["total"] - less == model.layers * (square + biases)


def test_sizes_by_name():
    assert len({repr(make()) for make in sizes.SIZES.values()}) == len(sizes.SIZES)
    assert sizes.size("gemma2-9b") == gemma2.gemma2("9b")
    with pytest.raises(UsageError, match=r"model:gema2-9b: neither .*; nearest: gemma2-9b"):
        sizes.size("gema2-9b")


def test_a_word_takes_a_size():
    words = ["model:gpt2-124m", "--train.steps", "3", "model.position:alibi"]
    tree, others = sizes.sized(experiment(), words)
    assert (tree.model, tree.name) == (gpt2.gpt2("124m"), f"{experiment().name}-gpt2-124m")
    assert others == words[1:]
    assert sizes.sized(experiment(), ["model:rwkv4"]) == (experiment(), ["model:rwkv4"])


def test_a_token_meets_two_experts():
    assert active_parameters(mixtral.mixtral("8x7b")) == 12_879_925_248
    assert active_parameters(mixtral.mixtral("8x22b")) == 39_152_031_744


def test_families_import_neither_jax_nor_numpy():
    code = (
        "import sys, jaxlm.families.known, jaxlm.families.sizes; "
        "sys.exit(bool({'jax', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
