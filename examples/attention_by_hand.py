"""Attention by hand: every matrix of the worked example of an article, printed, and the same from the package's layers.

What you learn: how word vectors become queries, keys and values, what the dot products, the division by √d_k, the mask
and the softmax each do to the numbers, and how two heads become one output.
The article gives vectors, Q, K and V for the words "I love play game". It has three slips, corrected here: its dot
products of the first row, 0.5 0.53 0.56 0.59, are really 0.70 0.80 0.90 1.00; it leaves out the division by √d_k; and
it calls the softmax "a sigmoid".

    python examples/attention_by_hand.py        (or read it as a notebook: examples/attention_by_hand.ipynb)

Seconds on any computer. The last line:
    The package's layer gives the same numbers: largest difference below 1e-5.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerModel

# %%
WORDS = ["I", "love", "play", "game"]
VECTORS = [[0.2, 0.5, -0.1, 0.8], [-0.4, 0.9, 0.3, -0.6], [0.7, 0.2, -0.5, 0.3], [0.1, -0.3, 0.6, 0.4]]
QUERIES = [[0.1, 0.2, 0.3, 0.4], [0.2, 0.3, 0.4, 0.5], [0.3, 0.4, 0.5, 0.6], [0.4, 0.5, 0.6, 0.7]]
KEYS = [[0.5, 0.6, 0.7, 0.8], [0.6, 0.7, 0.8, 0.9], [0.7, 0.8, 0.9, 1.0], [0.8, 0.9, 1.0, 1.1]]
VALUES = [[0.9, 1.0, 1.1, 1.2], [1.0, 1.1, 1.2, 1.3], [1.1, 1.2, 1.3, 1.4], [1.2, 1.3, 1.4, 1.5]]
# The article stops before the output projection; this W_O is chosen here, so that it mixes the two heads.
OUTPUT_WEIGHTS = [[1.0, 0.0, 0.5, 0.0], [0.0, 1.0, 0.0, 0.5], [0.5, 0.0, 1.0, 0.0], [0.0, 0.5, 0.0, 1.0]]


# %%
def show(title: str, matrix: Tensor, rows: Sequence[str] = WORDS, columns: Sequence[str] = ()) -> None:
    """Print a matrix with a name for each row and, where it helps, for each column."""
    print(f"\n{title}")
    if columns:
        print(" " * 8 + "".join(f"{name:>8}" for name in columns))
    for name, row in zip(rows, matrix.tolist(), strict=True):
        print(f"{name:>8}" + "".join(f"{number:8.4f}" for number in row))


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, name: str = "") -> Tensor:
    """Equation 1, softmax(Q Kᵀ / √d_k) V, printed step by step: (4, d_k), (4, d_k), (4, d_v) → (4, d_v)."""
    d_k = query.shape[-1]
    products = query @ key.T
    show(f"{name}Q Kᵀ: how well each word's query fits each word's key", products, columns=WORDS)
    scores = products / math.sqrt(d_k)
    show(f"{name}Q Kᵀ / √d_k, here divided by √{d_k} = {math.sqrt(d_k):.4f}", scores, columns=WORDS)
    if mask is not None:
        scores = scores + mask  # 0 keeps, −∞ hides
        show(f"{name}masked: no word may look at a later one", scores, columns=WORDS)
    weights = scores.softmax(dim=-1)
    show(f"{name}softmax: each row sums to 1", weights, columns=WORDS)
    context = weights @ value
    show(f"{name}weights · V: each row is a mixture of the rows of V", context)
    return context


def layer_with(w_q: Tensor, w_k: Tensor, w_v: Tensor, w_o: Tensor, num_heads: int) -> nn.Module:
    """Take a multi-head attention out of a model of this package and give it these weights (each 4 × 4, x @ w)."""
    config = VanillaTransformerConfig(
        vocab_size=8, d_model=4, d_ff=4, num_heads=num_heads, encoder_layers=1, decoder_layers=1, dropout=0.0
    )
    model = VanillaTransformerModel(config).double().eval()
    model.set_attn_implementation("eager")  # the implementation that returns its weights
    layer = model.encoder.layers[0].self_attn
    with torch.no_grad():
        # torch's Linear computes x @ weight.T, so its weight is the transposed matrix.
        layer.q_proj.weight.copy_(w_q.T)
        layer.k_proj.weight.copy_(w_k.T)
        layer.v_proj.weight.copy_(w_v.T)
        layer.out_proj.weight.copy_(w_o.T)
    return layer


# %%
x, q, k, v, w_o = (torch.tensor(rows, dtype=torch.float64) for rows in (VECTORS, QUERIES, KEYS, VALUES, OUTPUT_WEIGHTS))
print("1. From word vectors to queries, keys and values (§3.2.2): Q = X W_Q, K = X W_K, V = X W_V")
# X is invertible, so there is exactly one W_Q that leads from X to the article's Q: X⁻¹ Q. Likewise for K and V.
w_q, w_k, w_v = (torch.linalg.solve(x, wanted) for wanted in (q, k, v))
show("X, the word vectors", x)
dimensions = [f"dim {i}" for i in range(4)]
for name, weights, result in (("Q", w_q, q), ("K", w_k, k), ("V", w_v, v)):
    show(f"W_{name}", weights, rows=dimensions)
    show(f"{name} = X W_{name}", x @ weights)
    torch.testing.assert_close(x @ weights, result)

# %%
print("\n2. One head (§3.2.1)")
one_head = attend(q, k, v)
print("\nThe article's first row of Q Kᵀ is 0.5 0.53 0.56 0.59: a slip; I · I is really")
print("  0.1 · 0.5 + 0.2 · 0.6 + 0.3 · 0.7 + 0.4 · 0.8 = 0.70")
print("It also leaves out ÷√d_k, and calls the softmax a sigmoid; a sigmoid's rows would not sum to 1.")

# %%
print("\n3. The same with the decoder's mask (§3.2.3)")
mask = torch.full((4, 4), -math.inf, dtype=torch.float64).triu(diagonal=1)
masked = attend(q, k, v, mask)

# %%
print("\n4. Two heads of half the width, d_k = d_v = 2 (§3.2.2)")
heads = [attend(q[:, c], k[:, c], v[:, c], name=f"head {i}: ") for i, c in enumerate((slice(0, 2), slice(2, 4)))]
concatenated = torch.cat(heads, dim=-1)
show("Concat(head 0, head 1)", concatenated)
show("W_O, chosen for this example", w_o, rows=dimensions)
two_heads = concatenated @ w_o
show("Concat(head 0, head 1) W_O: the layer's output", two_heads)

# %%
print("\n5. The package's own layer, given the same weights")
identity = torch.eye(4, dtype=torch.float64)
of_package = {
    "one head": (layer_with(w_q, w_k, w_v, identity, 1)(x[None])[0][0], one_head),
    # Its mask is additive as well; the dtype's smallest number represents −∞.
    "one head, masked": (
        layer_with(w_q, w_k, w_v, identity, 1)(
            x[None], attention_mask=mask.clamp(min=torch.finfo(torch.float64).min)[None, None]
        )[0][0],
        masked,
    ),
    "two heads": (layer_with(w_q, w_k, w_v, w_o, 2)(x[None])[0][0], two_heads),
}
for name, (theirs, by_hand) in of_package.items():
    show(f"{name}, from the layer", theirs.detach())
    torch.testing.assert_close(theirs.detach(), by_hand, rtol=0, atol=1e-5)
print("\nThe package's layer gives the same numbers: largest difference below 1e-5.")
