"""The mixers once more, slowly and obviously: one query at a time, straight from their definitions.

Each takes a mixer for its weights and options, and one map (H, W, C); float64 in, float64 out.
"""

import math

import torch
import torch.nn.functional as F


def _heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    return x.view(*x.shape[:-1], heads, -1)


def _attend(q, keys, values, bias=None):
    """One query (d,), keys and values (n, d)."""
    logits = (keys @ q) / math.sqrt(len(q))
    weights = torch.softmax(logits if bias is None else logits + bias, 0)
    return weights @ values


def halo(m, x):
    H, W, C = x.shape
    b, w, h = m.block, m.window, m.heads
    q = _heads(m.q(x), h)
    k, v = m.kv(x).view(H, W, h, 2, C // h).unbind(3)
    out = torch.empty(H, W, h, C // h, dtype=x.dtype)
    for y in range(H):
        for x_ in range(W):
            top, left = y // b * b - m.halo, x_ // b * b - m.halo  # of the window
            inside = [(top + j, left + i) for j in range(w) for i in range(w) if 0 <= top + j < H and 0 <= left + i < W]
            rows = torch.tensor([w - 1 + (ky - top) - y % b for ky, _ in inside])
            cols = torch.tensor([w - 1 + (kx - left) - x_ % b for _, kx in inside])
            for n in range(h):
                query = q[y, x_, n]
                bias = m.height_rel[rows] @ query + m.width_rel[cols] @ query
                keys = torch.stack([k[ky, kx, n] for ky, kx in inside])
                values = torch.stack([v[ky, kx, n] for ky, kx in inside])
                out[y, x_, n] = _attend(query, keys, values, bias)
    return m.proj(out.flatten(2))


def swin(m, x):
    H, W, C = x.shape
    h, full = m.heads, m.window
    w, s = (min(H, W), 0) if min(H, W) <= full else (full, m.shift)
    Hp, Wp = math.ceil(H / w) * w, math.ceil(W / w) * w
    q, k, v = m.qkv(x).view(H, W, 3, h, C // h).unbind(2)

    def place(i, size):
        """After the roll: window along this axis, and whether the token came round from the other side."""
        rolled = (i - s) % size
        return rolled // w, i < s

    out = torch.empty(H, W, h, C // h, dtype=x.dtype)
    tokens = [(y, x_) for y in range(H) for x_ in range(W)]
    for y, x_ in tokens:
        here = place(y, Hp), place(x_, Wp)
        seen = [(ky, kx) for ky, kx in tokens if (place(ky, Hp), place(kx, Wp)) == here]
        # query minus key inside the window: the shift cancels, the roll does not reach across regions
        index = [(y - ky + full - 1) * (2 * full - 1) + (x_ - kx + full - 1) for ky, kx in seen]
        for n in range(h):
            keys = torch.stack([k[ky, kx, n] for ky, kx in seen])
            values = torch.stack([v[ky, kx, n] for ky, kx in seen])
            bias = m.relative_position_bias_table[index, n]
            out[y, x_, n] = _attend(q[y, x_, n], keys, values, bias)
    return m.proj(out.flatten(2))


def pvt(m, x):
    H, W, C = x.shape
    h, R = m.heads, m.reduction
    source = x
    if R > 1:
        rows, columns = max(H, R), max(W, R)  # a side that is shorter gives one key, of zeros beyond the map
        whole = torch.zeros(rows, columns, C, dtype=x.dtype)
        whole[:H, :W] = x
        patches = [
            [
                torch.einsum("yxc,ocyx->o", whole[y : y + R, x_ : x_ + R], m.reduce.weight)
                for x_ in range(0, columns - R + 1, R)
            ]
            for y in range(0, rows - R + 1, R)
        ]
        source = torch.stack([torch.stack(row) for row in patches]) + m.reduce.bias
        source = F.layer_norm(source, (C,), m.norm.weight, m.norm.bias, 1e-5)
    k, v = m.kv(source).view(-1, 2, h, C // h).unbind(1)
    q = _heads(m.q(x), h)
    out = torch.empty(H, W, h, C // h, dtype=x.dtype)
    for y in range(H):
        for x_ in range(W):
            for n in range(h):
                out[y, x_, n] = _attend(q[y, x_, n], k[:, n], v[:, n])
    return m.proj(out.flatten(2))


pvt_v2 = pvt


def convnext(m, x):
    H, W, C = x.shape
    K = m.dwconv.kernel_size[0]
    u, r = m.proj_in(x), K // 2
    out = m.dwconv.bias.expand(H, W, C).clone()
    for y in range(H):
        for x_ in range(W):
            for j in range(K):
                for i in range(K):
                    ky, kx = y + j - r, x_ + i - r
                    if 0 <= ky < H and 0 <= kx < W:
                        out[y, x_] += m.dwconv.weight[:, 0, j, i] * u[ky, kx]
    return m.proj_out(out)


def dcn_v3(m, x):
    H, W, C = x.shape
    h = m.heads
    f = F.conv2d(x.permute(2, 0, 1)[None], m.dwconv.weight, m.dwconv.bias, padding=1, groups=C)[0].permute(1, 2, 0)
    f = F.gelu(F.layer_norm(f, (C,), m.norm.weight, m.norm.bias, 1e-5))
    offsets, weights = m.offsets(f).view(H, W, h, 9, 2), m.weights(f).view(H, W, h, 9).softmax(-1)
    value = _heads(m.value(x), h)

    def pixel(y, x_, n):
        return value[y, x_, n] if 0 <= y < H and 0 <= x_ < W else torch.zeros(C // h, dtype=x.dtype)

    out = torch.zeros(H, W, h, C // h, dtype=x.dtype)
    for y in range(H):
        for x_ in range(W):
            for n in range(h):
                for p in range(9):
                    px = x_ + p // 3 - 1 + offsets[y, x_, n, p, 0].item()
                    py = y + p % 3 - 1 + offsets[y, x_, n, p, 1].item()
                    x0, y0 = math.floor(px), math.floor(py)
                    a, b = px - x0, py - y0
                    sample = (1 - b) * ((1 - a) * pixel(y0, x0, n) + a * pixel(y0, x0 + 1, n))
                    sample = sample + b * ((1 - a) * pixel(y0 + 1, x0, n) + a * pixel(y0 + 1, x0 + 1, n))
                    out[y, x_, n] += weights[y, x_, n, p] * sample
    return m.proj(out.flatten(2))


def identity(m, x):
    return x


def pooling(m, x):
    H, W, _ = x.shape
    near = [[x[max(y - 1, 0) : y + 2, max(i - 1, 0) : i + 2] for i in range(W)] for y in range(H)]
    return torch.stack([torch.stack([tile.flatten(0, 1).mean(0) for tile in row]) for row in near]) - x
