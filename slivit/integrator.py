"""The integrator: a small Vision Transformer that reads one token per slice."""

import torch
from timm.models.vision_transformer import Attention, Block
from torch import nn

from slivit.config import IntegratorConfig


class Integrator(nn.Module):
    """Features of the slices of a volume -> one prediction.

    LayerNorm, linear, LayerNorm make a token of each slice's features; a class token and a learned
    position embedding are added; pre-norm transformer blocks follow, with the padding masked out
    of attention; the class token gives the logits. Source: SLIViT (Avram et al. 2024, Methods),
    except that a token here is a slice.

    Args:
        in_dim: length of a slice's feature vector.
        n_slices: longest volume; positions beyond a volume's last slice are padding.
        n_outputs: K.
        config: sizes.
    """

    def __init__(self, in_dim: int, n_slices: int, n_outputs: int,
                 config: IntegratorConfig) -> None:
        super().__init__()
        dim = config.dim
        self.embed = nn.Sequential(nn.LayerNorm(in_dim), nn.Linear(in_dim, dim), nn.LayerNorm(dim))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, n_slices + 1, dim))
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.emb_drop = nn.Dropout(config.emb_dropout)
        self.blocks = nn.ModuleList(_block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, n_outputs)

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Integrate.

        Args:
            features: (B, S, in_dim) float32; what stands where `mask` is False has no influence.
            mask: (B, S) bool, True for real slices.

        Returns:
            (B, K) logits.
        """
        features = features.masked_fill(~mask[..., None], 0.0)
        tokens = self.embed(features)  # (B, S, dim)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        tokens = self.emb_drop(tokens + self.pos_embed)  # (B, S + 1, dim)
        attends = torch.cat([mask.new_ones(len(mask), 1), mask], dim=1)[:, None, None, :]
        for block in self.blocks:
            tokens = block(tokens, attn_mask=attends)
        return self.head(self.norm(tokens[:, 0]))


def _block(config: IntegratorConfig) -> Block:
    """Return timm's pre-norm block, its attention heads of a width of their own."""
    block = Block(config.dim, num_heads=1, mlp_ratio=config.mlp_dim / config.dim,
                  proj_drop=config.dropout)
    block.attn = Attention(config.dim, config.heads, attn_head_dim=config.head_dim,
                           attn_drop=config.dropout, proj_drop=config.dropout)
    return block
