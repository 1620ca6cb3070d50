"""The Transformer of the paper, implemented naively in fp64: loops over heads and positions, no cache.

It shares no code with the package: it reads the parameters by name and the sizes from the configuration. The package's
fast implementations are compared with it, forward and backward.
"""

import math

import torch


def positions(config, count, table=None):
    """Compute the positional encodings (§3.5) element by element."""
    d = config.d_model
    rows = torch.zeros(count, d, dtype=torch.float64)
    for step in range(count):
        pos = step + config.position_offset
        for i in range(d // 2):
            if config.position_embedding_type == "sinusoidal":
                angle = pos / 10000 ** (2 * i / d)
                rows[step, 2 * i], rows[step, 2 * i + 1] = math.sin(angle), math.cos(angle)
            else:  # Tensor2Tensor: halves, step ln(10000) / (d/2 - 1)
                angle = pos * math.exp(-i * math.log(10000) / (d // 2 - 1))
                rows[step, i], rows[step, d // 2 + i] = math.sin(angle), math.cos(angle)
    return rows if table is None else table[config.position_offset : config.position_offset + count]


def linear(x, parameters, name):
    y = x @ parameters[name + ".weight"].T
    return y + parameters[name + ".bias"] if name + ".bias" in parameters else y


def layer_norm(x, parameters, name, eps):
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / (variance + eps).sqrt() * parameters[name + ".weight"] + parameters[name + ".bias"]


def attention(config, parameters, name, queries_from, keys_from, visible):
    """Compute attention (§3.2) for one sentence: (T, D) attends to (S, D) where ``visible`` (T, S) is True."""
    d_k = config.d_k or config.d_model // config.num_heads
    d_v = config.d_v or config.d_model // config.num_heads
    q, k, v = (
        linear(x, parameters, f"{name}.{p}_proj") for p, x in (("q", queries_from), ("k", keys_from), ("v", keys_from))
    )
    heads = []
    for head in range(config.num_heads):
        rows = []
        for t in range(len(q)):
            query = q[t, head * d_k : (head + 1) * d_k]
            scores = [
                (query * k[s, head * d_k : (head + 1) * d_k]).sum() / math.sqrt(d_k)
                for s in range(len(k))
                if visible[t][s]
            ]
            values = [v[s, head * d_v : (head + 1) * d_v] for s in range(len(k)) if visible[t][s]]
            exponentials = [(score - max(scores).detach()).exp() for score in scores]
            rows.append(sum(e / sum(exponentials) * value for e, value in zip(exponentials, values, strict=True)))
        heads.append(torch.stack(rows))
    return linear(torch.cat(heads, dim=-1), parameters, name + ".out_proj")


def feed_forward(config, parameters, name, x):
    inner = linear(x, parameters, name + ".w_1")
    inner = {"relu": lambda z: z.clamp(min=0), "swish": lambda z: z * torch.sigmoid(z)}[config.activation_function](
        inner
    )
    return linear(inner, parameters, name + ".w_2")


def residual(config, parameters, norm, x, sublayer):
    eps = config.layer_norm_eps
    if config.norm_position == "pre":
        return x + sublayer(layer_norm(x, parameters, norm, eps))
    return layer_norm(x + sublayer(x), parameters, norm, eps)


def stack(config, parameters, side, ids, source_states=None):
    prefix = f"model.{side}"
    scale = math.sqrt(config.d_model) if config.scale_embedding else 1.0
    table = parameters.get(f"{prefix}.embed_positions.weight")
    x = parameters[f"{prefix}.embed_tokens.weight"][ids] * scale + positions(config, len(ids), table)
    n = len(ids)
    layers = config.encoder_layers if side == "encoder" else config.decoder_layers
    for index in range(layers):
        name = f"{prefix}.layers.{index}"
        sees = [[side == "encoder" or s <= t for s in range(n)] for t in range(n)]
        x = residual(
            config, parameters, f"{name}.self_attn_norm", x,
            lambda y, name=name, sees=sees: attention(config, parameters, f"{name}.self_attn", y, y, sees),
        )  # fmt: skip
        if side == "decoder":
            all_of_it = [[True] * len(source_states) for _ in range(n)]
            x = residual(
                config, parameters, f"{name}.cross_attn_norm", x,
                lambda y, name=name: attention(
                    config, parameters, f"{name}.cross_attn", y, source_states, all_of_it  # noqa: B023
                ),
            )  # fmt: skip
        x = residual(
            config, parameters, f"{name}.feed_forward_norm", x,
            lambda y, name=name: feed_forward(config, parameters, f"{name}.feed_forward", y),
        )  # fmt: skip
    if config.final_norm:
        x = layer_norm(x, parameters, f"{prefix}.final_norm", config.layer_norm_eps)
    return x


def logits(config, parameters, source, target_inputs):
    """Return the logits (T, V) of one sentence pair without padding, given as lists of ids."""
    source_states = stack(config, parameters, "encoder", source)
    return linear(stack(config, parameters, "decoder", target_inputs, source_states), parameters, "lm_head")


def loss(config, parameters, pairs, label_smoothing):
    """Return smoothed loss (§5.4) and negative log-likelihood of pairs (source, labels), averaged over tokens."""
    smoothed, nll, tokens = 0.0, 0.0, 0
    for source, labels in pairs:
        rows = logits(config, parameters, source, [config.decoder_start_token_id, *labels[:-1]])
        for row, label in zip(rows, labels, strict=True):
            log_probabilities = row - row.exp().sum().log()
            nll = nll - log_probabilities[label]
            uniform = -log_probabilities.mean()
            smoothed = smoothed - (1 - label_smoothing) * log_probabilities[label] + label_smoothing * uniform
            tokens += 1
    return smoothed / tokens, nll / tokens
