"""A GPT-2 of the baby GPT's size in plain JAX: `… train_jax fp32|bf16`.

Weights and AdamW are fp32; `bf16` casts the weights once a step, as mixed precision does, and
leaves the norms' statistics, the softmax and the loss in fp32. One compiled function takes a whole
step and updates the weights in place. XLA has no option for the number of threads: it uses every
core.
"""

import sys
import time
from typing import Any

from benchmarks.turns import Turn, serve

BATCH, BLOCK, VOCAB, LAYERS, HEADS, WIDTH = 16, 256, 65, 6, 6, 384


def draw(jax: Any) -> dict[str, Any]:
    """The weights; those of all layers are stacked."""
    shapes = {
        "token": (VOCAB, WIDTH), "place": (BLOCK, WIDTH), "norm": (WIDTH,), "head": (WIDTH, VOCAB),
        "norm1": (LAYERS, WIDTH), "qkv": (LAYERS, WIDTH, 3 * WIDTH), "norm2": (LAYERS, WIDTH),
        "proj": (LAYERS, WIDTH, WIDTH), "up": (LAYERS, WIDTH, 4 * WIDTH),
        "down": (LAYERS, 4 * WIDTH, WIDTH),
    }  # fmt: skip
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return {
        name: jax.numpy.ones(shape)
        if "norm" in name
        else 0.02 * jax.random.normal(key, shape)
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }  # fmt: skip


def loss_of(jax: Any, weights: dict[str, Any], x: Any, y: Any, dtype: Any) -> Any:
    """The mean cross-entropy of the next tokens."""
    jnp = jax.numpy
    w = {name: weight.astype(dtype) for name, weight in weights.items()}

    def normed(x: Any, gain: Any) -> Any:
        wide = x.astype(jnp.float32)
        wide = wide - wide.mean(-1, keepdims=True)
        return (wide * jax.lax.rsqrt((wide * wide).mean(-1, keepdims=True) + 1e-5)).astype(
            dtype
        ) * gain

    h = w["token"][x] + w["place"]
    for i in range(LAYERS):
        qkv = (normed(h, w["norm1"][i]) @ w["qkv"][i]).reshape(BATCH, BLOCK, 3, HEADS, -1)
        q, k, v = (qkv[:, :, part] for part in range(3))
        out = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        h = h + out.reshape(BATCH, BLOCK, WIDTH) @ w["proj"][i]
        up = jax.nn.gelu(normed(h, w["norm2"][i]) @ w["up"][i], approximate=False)
        h = h + up @ w["down"][i]
    logits = (normed(h, w["norm"]) @ w["head"]).astype(jnp.float32)
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[..., None], -1).mean()


def prepare() -> tuple[str, Turn]:
    """Builds the step."""
    import jax

    jnp, dtype = jax.numpy, jax.numpy.float32 if sys.argv[1] == "fp32" else jax.numpy.bfloat16
    x, y = jax.random.randint(jax.random.key(1), (2, BATCH, BLOCK), 0, VOCAB)

    def step(state: Any) -> Any:
        weights, first, second, count = state
        loss, gradients = jax.value_and_grad(lambda w: loss_of(jax, w, x, y, dtype))(weights)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradients)
        second = jax.tree.map(lambda v, g: 0.99 * v + 0.01 * g * g, second, gradients)
        count = count + 1

        def updated(w: Any, m: Any, v: Any) -> Any:
            direction = m / (1 - 0.9**count) / (jnp.sqrt(v / (1 - 0.99**count)) + 1e-8)
            return w * (1 - 1e-3 * 0.1) - 1e-3 * direction

        return (jax.tree.map(updated, weights, first, second), first, second, count), loss

    compiled = jax.jit(step, donate_argnums=0)
    weights = draw(jax)
    kept = [(weights, *(jax.tree.map(jnp.zeros_like, weights) for _ in range(2)), jnp.zeros(()))]

    def turn(_request: dict[str, Any]) -> dict[str, Any]:
        started = time.perf_counter()
        kept[0], loss = compiled(kept[0])
        jax.block_until_ready((kept[0], loss))
        return {"loss": float(loss), "seconds": time.perf_counter() - started}

    return f"JAX {jax.__version__}", turn


if __name__ == "__main__":
    serve(prepare)
