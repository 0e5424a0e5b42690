"""The peers' side of the comparison: what a user of JAX runs today.

Prints JSON lines {"peer", "what", "sites", "cpu_us"}: median processor time in
microseconds per sample or per connected element, f32, compilation excluded.
Processor time is that of all threads, as in `dnetc bench`.

With `--gpu` the same networks run on JAX's first GPU, with batches that fill it
(products of matrices as JAX chooses them, which may be TF32), and the lines hold
"wall_us": elapsed time. Without a GPU that prints nothing but a sentence, and fails.
There netket may be missing, and with it its RBM.

* `netket RBM`, alpha = 1: full evaluation, and a local update in O(N) written
  with JAX (lookup table theta + 2 s_j W_j, one log cosh per hidden unit).
* `flax ViT`: tokens of 2 and 5 spins, dimension 14, 2 heads, 2 layers (factored
  positional attention is not used: this is the plain transformer).
* `jax DysonNet`: the published architecture, full evaluation with FFT mixers;
  kernels are computed once per call and shared by the batch.
"""

import argparse
import json
import os
import sys
import time

ON_GPU = "--gpu" in sys.argv
if not ON_GPU:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

try:
    import netket as nk
except ImportError:
    if not ON_GPU:
        raise
    nk = None

BATCH = 2048 if ON_GPU else 256

# processor time on a CPU; a GPU's work shows in elapsed time only
CLOCK = time.perf_counter if ON_GPU else time.process_time


def median_time(call, seconds=1.0):
    """Median time of `call` in seconds, at least five calls."""
    jax.block_until_ready(call())
    times, begin = [], time.monotonic()
    while len(times) < 5 or (time.monotonic() - begin < seconds and len(times) < 200):
        start = CLOCK()
        jax.block_until_ready(call())
        times.append(CLOCK() - start)
    return float(np.median(times))


def log_cosh(x):
    """As netket has it, for real numbers."""
    x = jnp.abs(x)
    return x + jnp.log1p(jnp.exp(-2.0 * x)) - jnp.log(2.0)


def report(peer, what, sites, seconds, count):
    unit = "wall_us" if ON_GPU else "cpu_us"
    line = {"peer": peer, "what": what, "sites": sites, unit: round(seconds * 1e6 / count, 3)}
    print(json.dumps(line), flush=True)


class ViT(nn.Module):
    """A plain vision transformer on patches of a chain, log cosh readout."""

    token: int
    dim: int = 14
    heads: int = 2
    layers: int = 2

    @nn.compact
    def __call__(self, spins):
        x = spins.reshape(*spins.shape[:-1], -1, self.token)
        x = nn.Dense(self.dim)(x)
        position = self.param("position", nn.initializers.normal(0.1), x.shape[-2:])
        x = x + position
        for _ in range(self.layers):
            y = nn.LayerNorm()(x)
            x = x + nn.MultiHeadDotProductAttention(num_heads=self.heads)(y, y)
            y = nn.LayerNorm()(x)
            x = x + nn.Dense(self.dim)(nn.gelu(nn.Dense(2 * self.dim)(y)))
        x = nn.LayerNorm()(x.mean(axis=-2))
        return jnp.sum(log_cosh(nn.Dense(self.dim)(x)), axis=-1)


class S4(nn.Module):
    """Bidirectional S4 in its DPLR form on a ring: dim / 2 complex channels."""

    states: int = 12

    @nn.compact
    def __call__(self, x):
        length, dim = x.shape[-2:]
        shape = (dim // 2, self.states)
        normal = nn.initializers.normal(0.7)

        def complex_param(name):
            return self.param(f"{name}_re", normal, shape) + 1j * self.param(f"{name}_im", normal, shape)

        damping = jnp.abs(self.param("damping", nn.initializers.constant(0.5), shape))
        frequency = self.param("frequency", nn.initializers.normal(3.0), shape)
        poles = -damping + 1j * frequency
        b, c, p = complex_param("b"), complex_param("c"), complex_param("p")
        skip = self.param("skip", normal, (dim // 2,))
        step = jnp.exp(self.param("log_step", nn.initializers.constant(-3.0), (dim // 2,)))[:, None]
        omega = jnp.exp(-2j * jnp.pi * jnp.arange(length) / length)[None, :]
        # 2 / ((2 / D) (1 - w) - (1 + w) Lambda): finite at w = -1
        resolvent = 2.0 / (
            (2.0 / step)[..., None] * (1.0 - omega)[:, None] - (1.0 + omega)[:, None] * poles[..., None]
        )

        def cauchy(left, right):
            return jnp.einsum("cn,cn,cnq->cq", left.conj(), right, resolvent)

        k_pp = cauchy(p, p) * (1.0 + omega) / 2.0
        correction = cauchy(c, p) * (1.0 + omega) / 2.0 / (1.0 + k_pp) * cauchy(p, b)
        one_way = cauchy(c, b) - correction
        kernel = one_way + jnp.roll(one_way[:, ::-1], 1, axis=1) + 2.0 * skip[:, None]
        z = x[..., : dim // 2] + 1j * x[..., dim // 2 :]
        spectrum = jnp.fft.fft(z, axis=-2) * kernel.T
        y = jnp.fft.ifft(spectrum, axis=-2)
        return jnp.concatenate([y.real, y.imag], axis=-1).astype(x.dtype)


class DysonNet(nn.Module):
    """The published network: gated local vertices between S4 mixers."""

    depth: int = 2
    dim: int = 14
    token: int = 2
    kernel: int = 4
    hidden: int = 2

    @nn.compact
    def __call__(self, spins):
        x = spins.reshape(*spins.shape[:-1], -1, self.token)
        phi = h = nn.Dense(self.dim)(x)
        normal = nn.initializers.normal(0.5)
        for block in range(self.depth):
            a, gate = jnp.split(
                nn.Dense(2 * self.dim, use_bias=False)(nn.LayerNorm()(phi)), 2, axis=-1
            )
            taps = self.param(f"taps_{block}", normal, (self.kernel, self.dim))
            bias = self.param(f"bias_{block}", normal, (self.dim,))
            shifts = range(-((self.kernel - 1) // 2), self.kernel // 2 + 1)
            c = sum(t * jnp.roll(a, -s, axis=-2) for t, s in zip(taps, shifts)) + bias
            c = nn.silu(c)
            scale = self.param(f"scale_{block}", normal, (self.dim,))
            shift = self.param(f"shift_{block}", normal, (self.dim,))
            source = nn.Dense(self.dim, use_bias=False)(h * scale + shift) + c
            h = h + nn.silu(gate) * nn.Dense(self.dim, use_bias=False)(S4()(source))
            phi = phi + c
        weights = self.param("head", normal, (self.dim, self.hidden))
        return jnp.sum(log_cosh(h.mean(axis=-2) @ weights), axis=-1)


def configurations(sites, count):
    rng = np.random.default_rng(1)
    return jnp.asarray(rng.choice([-1.0, 1.0], (count, sites)), dtype=jnp.float32)


def full(name, module, sites, count):
    spins = configurations(sites, count)
    params = module.init(jax.random.key(0), spins[:1])
    params = jax.tree.map(lambda x: x.astype(jnp.float32), params)
    apply = jax.jit(module.apply)
    report(name, "log_psi", sites, median_time(lambda: apply(params, spins)), count)
    gradient = jax.jit(
        lambda p, s: jax.vmap(jax.grad(lambda q, x: module.apply(q, x[None])[0].real), (None, 0))(p, s)
    )
    few = spins[: max(1, count // 8)]
    report(name, "gradient", sites, median_time(lambda: gradient(params, few)), len(few))


def rbm_update(sites):
    """All single flips of one background, each in O(N): per connected element."""
    rng = np.random.default_rng(2)
    w = jnp.asarray(rng.normal(0, 0.3, (sites, sites)), dtype=jnp.float32)
    spins = configurations(sites, 1)[0]

    @jax.jit
    def ratios(w, spins):
        theta = spins @ w
        changed = theta[None, :] - 2.0 * spins[:, None] * w
        return jnp.sum(log_cosh(changed) - log_cosh(theta)[None, :], axis=1)

    report("jax RBM update", "local_estimator", sites, median_time(lambda: ratios(w, spins)), sites)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sites", default="100,200,500,1000")
    parser.add_argument("--gpu", action="store_true", help="on JAX's first GPU, elapsed time")
    args = parser.parse_args()
    if args.gpu and jax.default_backend() != "gpu":
        sys.exit("jax sees no GPU: install its CUDA plugin (pip install 'jax[cuda12]')")
    for sites in map(int, args.sites.split(",")):
        count = BATCH if ON_GPU else max(16, BATCH * 100 // sites)
        few = (count, count) if ON_GPU else (max(8, count // 4), max(8, count // 2))
        # what is compared first, should the time be short
        full("jax DysonNet", DysonNet(), sites, count)
        full("flax ViT (token 2)", ViT(2), sites, few[0])
        full("flax ViT (token 5)", ViT(5), sites, few[1])
        if nk is not None:
            full("netket RBM", nk.models.RBM(alpha=1, param_dtype=jnp.float32), sites, count)
        rbm_update(sites)


if __name__ == "__main__":
    main()
