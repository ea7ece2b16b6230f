"""Eight CPU devices in every test, no silent broadcasting between ranks, and every array's shape checked."""

import os

# Test programs are tiny: compiling them well takes seconds each, compiling them simply a fraction of that.
os.environ["XLA_FLAGS"] = f"--xla_cpu_use_fusion_emitters=false {os.environ.get('XLA_FLAGS', '')}"

import jax
from jaxtyping import install_import_hook

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_disable_most_optimizations", True)

ROOMS = ("parallel", "layers", "models", "objectives", "adapters", "quantize", "sampling")
install_import_hook([f"jaxlm.{room}" for room in ROOMS], "shapes.check")
