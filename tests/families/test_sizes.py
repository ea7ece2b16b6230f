"""Parameter counts of the literature, exact where the weights are public."""

import subprocess
import sys

import pytest

from jaxlm.config.flops import active_parameters, parameters
from jaxlm.families import (
    bloom,
    codegen,
    falcon,
    gemma,
    gemma2,
    gemma3,
    gpt2,
    gpt3,
    gpt_neox,
    gptj,
    llama,
    mixtral,
    olmo2,
    opt,
    qwen3,
    qwen3_moe,
)


@pytest.mark.parametrize(
    ("model", "count"),
    [
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
        (opt.opt("175b"), 174_604_468_224),
        (gpt2.gpt2("124m"), 124_439_808),
        (gpt2.gpt2("355m"), 354_823_168),
        (gpt2.gpt2("774m"), 774_030_080),
        (gpt2.gpt2("1.5b"), 1_557_611_200),
    ],
)
def test_public_weights(model, count):
    assert parameters(model)["total"] == count


@pytest.mark.parametrize(("model", "billions"), [(gpt3.gpt3_175b(), 175), (gpt3.jurassic1_178b(), 178)])
def test_papers(model, billions):
    assert parameters(model)["total"] == pytest.approx(billions * 1e9, rel=0.01)


def test_a_token_meets_two_experts():
    assert active_parameters(mixtral.mixtral("8x7b")) == 12_879_925_248
    assert active_parameters(mixtral.mixtral("8x22b")) == 39_152_031_744


def test_families_import_neither_jax_nor_numpy():
    code = (
        "import sys, jaxlm.families.known, jaxlm.families.gpt3; sys.exit(bool({'jax', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
