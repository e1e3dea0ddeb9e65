# SPDX-License-Identifier: BSD-3-Clause
"""Attention as people write it in PyTorch, small: functions of (units, heads, kv_heads, causal, length) that make a
module. Needs torch."""

import math

import torch
from torch import nn
from torch.nn import functional as F


def triangle(length):
    return torch.tril(torch.ones(length, length))


class Fused(nn.Module):
    """nanoGPT's: one Linear cut in thirds, scores written out, a mask in a buffer."""

    def __init__(self, n, heads, causal, length, flash):
        super().__init__()
        self.c_attn, self.c_proj = nn.Linear(n, 3 * n), nn.Linear(n, n)
        self.n_head, self.n_embd, self.causal, self.flash, self.dropout = heads, n, causal, flash, 0.0
        self.attn_dropout, self.resid_dropout = nn.Dropout(0.0), nn.Dropout(0.0)
        self.register_buffer("bias", triangle(length).view(1, 1, length, length))

    def forward(self, x):
        B, T, C = x.size()
        q, k, v = self.c_attn(x).split(self.n_embd, dim=2)
        k = k.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        q = q.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        v = v.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        if self.flash:
            y = F.scaled_dot_product_attention(
                q, k, v, attn_mask=None, dropout_p=self.dropout if self.training else 0, is_causal=self.causal
            )
        else:
            att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
            if self.causal:
                att = att.masked_fill(self.bias[:, :, :T, :T] == 0, float("-inf"))
            att = self.attn_dropout(F.softmax(att, dim=-1))
            y = att @ v
        y = y.transpose(1, 2).contiguous().view(B, T, C)
        return self.resid_dropout(self.c_proj(y))


class Vision(nn.Module):
    """timm's: reshape to (3, heads, d), unbind; scores in steps."""

    def __init__(self, n, heads):
        super().__init__()
        self.num_heads, self.scale = heads, (n // heads) ** -0.5
        self.qkv, self.proj, self.norm = nn.Linear(n, 3 * n, bias=False), nn.Linear(n, n), nn.Identity()

    def forward(self, x):
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        q, k = self.norm(q), self.norm(k)
        q = q * self.scale
        attn = (q @ k.transpose(-2, -1)).softmax(dim=-1)
        return self.proj((attn @ v).transpose(1, 2).reshape(B, N, C))


class Shared(nn.Module):
    """Llama's without rotation: separate Linears, keys and values shared by groups of heads."""

    def __init__(self, n, heads, kv_heads, causal, how):
        super().__init__()
        d = n // heads
        self.heads, self.kv, self.d, self.causal, self.how = heads, kv_heads, d, causal, how
        self.wq, self.wo = nn.Linear(n, n, bias=False), nn.Linear(n, n, bias=False)
        self.wk, self.wv = nn.Linear(n, kv_heads * d, bias=False), nn.Linear(n, kv_heads * d, bias=False)

    def forward(self, x):
        b, t, _ = x.shape
        q = self.wq(x).view(b, t, self.heads, self.d).transpose(1, 2)
        k = self.wk(x).view(b, t, self.kv, self.d).transpose(1, 2)
        v = self.wv(x).view(b, t, self.kv, self.d).transpose(1, 2)
        again = self.heads // self.kv
        if self.how == "gqa":
            y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal, enable_gqa=True)
        elif self.how == "expand":
            grow = lambda z: z[:, :, None, :, :].expand(b, self.kv, again, t, self.d).reshape(b, self.heads, t, self.d)
            y = F.scaled_dot_product_attention(q, grow(k), grow(v), is_causal=self.causal)
        else:
            k, v = k.repeat_interleave(again, dim=1), torch.repeat_interleave(v, again, 1)
            scores = torch.matmul(q, k.transpose(2, 3)) / math.sqrt(self.d)
            if self.causal:
                scores = scores + torch.full((t, t), float("-inf")).triu(1)
            y = torch.matmul(F.softmax(scores, dim=-1, dtype=torch.float64).type_as(q), v)
        return self.wo(y.transpose(1, 2).reshape(b, t, -1))


class Einsum(nn.Module):
    def __init__(self, n, heads, causal):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(n, n) for _ in range(4))
        self.heads, self.causal = heads, causal

    def forward(self, x):
        t = x.shape[1]
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)) for f in (self.q, self.k, self.v))
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
        if self.causal:
            scores = torch.where(triangle(t).bool(), scores, torch.finfo(scores.dtype).min)
        mixed = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v)
        return self.out(mixed.flatten(2))


class OneHead(nn.Module):
    def __init__(self, n, causal):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(n, n) for _ in range(4))
        self.causal = causal

    def forward(self, x):
        scores = torch.bmm(self.q(x), self.k(x).transpose(1, 2)) / math.sqrt(x.size(-1))
        if self.causal:
            scores = scores.masked_fill(~triangle(x.size(1)).bool(), -1e9)
        return self.out(torch.bmm(nn.Softmax(dim=-1)(scores), self.v(x)))


class Torch(nn.Module):
    """nn.MultiheadAttention of one input."""

    def __init__(self, n, heads, causal, length):
        super().__init__()
        self.attn, self.causal = nn.MultiheadAttention(n, heads, batch_first=True), causal
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length), persistent=False)

    def forward(self, x):
        mask = self.mask[: x.size(1), : x.size(1)] if self.causal else None
        return self.attn(x, x, x, need_weights=False, attn_mask=mask, is_causal=self.causal)[0]


def attention(kind, n, heads, kv_heads, causal, length):
    return {
        "written": lambda: Fused(n, heads, causal, length, False),
        "sdpa": lambda: Fused(n, heads, causal, length, True),
        "vision": lambda: Vision(n, heads),
        "gqa": lambda: Shared(n, heads, kv_heads, causal, "gqa"),
        "expand": lambda: Shared(n, heads, kv_heads, causal, "expand"),
        "repeat": lambda: Shared(n, heads, kv_heads, causal, "repeat"),
        "einsum": lambda: Einsum(n, heads, causal),
        "one head": lambda: OneHead(n, causal),
        "torch": lambda: Torch(n, heads, causal, length),
    }[kind]()


KINDS = ("written", "sdpa", "vision", "gqa", "expand", "repeat", "einsum", "one head", "torch")


class Block(nn.Module):
    def __init__(self, attn, n, pre, norm=nn.LayerNorm, act=nn.GELU):
        super().__init__()
        self.attn, self.pre = attn, pre
        self.ln_1, self.ln_2 = norm(n), norm(n)
        self.mlp = nn.Sequential(nn.Linear(n, 2 * n), act(), nn.Linear(2 * n, n))

    def forward(self, x):
        if self.pre:
            x = x + self.attn(self.ln_1(x))
            return x + self.mlp(self.ln_2(x))
        x = self.ln_1(x + self.attn(x))
        return self.ln_2(x + self.mlp(x))


class Reading(nn.Module):
    """Blocks, a norm, and a Linear over all positions, one, or their mean."""

    def __init__(self, blocks, n, over="positions", outputs=3):
        super().__init__()
        self.blocks, self.norm, self.head, self.over = (
            nn.ModuleList(blocks),
            nn.LayerNorm(n),
            nn.Linear(n, outputs),
            over,
        )

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        if self.over == "last":
            x = x[:, -1]
        elif self.over == "first":
            x = x[:, 0, :]
        elif self.over == "mean":
            x = x.mean(dim=1)
        return self.head(x)
