"""The integrator: a small Vision Transformer that reads one token per slice, or a linear layer."""

import torch
from timm.layers import LayerNorm
from timm.models.vision_transformer import Attention, Block
from torch import nn

from slivit.config import IntegratorConfig


def create_integrator(in_dim: int, n_slices: int, n_outputs: int, config: IntegratorConfig,
                      n_views: int = 1) -> "Integrator | LinearIntegrator":
    """Return the integrator of a kind and sizes; arguments as those of Integrator."""
    if config.kind == "linear":
        return LinearIntegrator(in_dim, n_outputs)
    return Integrator(in_dim, n_slices, n_outputs, config, n_views)


class LinearIntegrator(nn.Module):
    """Mean and maximum over the slices of their features, and a linear layer: for few volumes.

    Args:
        in_dim: length of a slice's feature vector.
        n_outputs: K.

    Attributes:
        embed_dim: length of the vectors of `encode`.
        penalty: with which it was solved, in words; of the model that was trained alone.
    """

    def __init__(self, in_dim: int, n_outputs: int) -> None:
        super().__init__()
        self.embed_dim, self.penalty = 2 * in_dim, ""
        self.head = nn.Linear(self.embed_dim, n_outputs)

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, K) of volumes; see `encode` for the arguments."""
        return self.head(self.encode(features, mask))

    def encode(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the mean, then the maximum, over the real slices: (B, 2 * in_dim).

        Args:
            features: (B, S, in_dim) float32; values where `mask` is False have no influence.
            mask: (B, S) bool, True for real slices.
        """
        real = mask[..., None]
        mean = features.masked_fill(~real, 0.0).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return torch.cat([mean, features.masked_fill(~real, -torch.inf).amax(dim=1)], dim=1)


class Integrator(nn.Module):
    """Features of the slices of a volume -> one prediction.

    LayerNorm, linear, LayerNorm make a token of each slice's features; a class token and a learned
    position embedding are added; pre-norm transformer blocks follow, with the padding masked out
    of attention; the class token gives the logits. Source: SLIViT (Avram et al. 2024, Methods),
    except that a token here is a slice (other than in converted models, see IntegratorConfig).

    Args:
        in_dim: length of a slice's feature vector.
        n_slices: longest volume; positions beyond a volume's last slice are padding.
        n_outputs: K.
        config: sizes.
        n_views: V; the tokens are those of V views, `n_slices` each. Slices at the same place in
            their views share a position embedding, slices of a view its view embedding.

    Attributes:
        embed_dim: length of the vectors of `encode`.
    """

    def __init__(self, in_dim: int, n_slices: int, n_outputs: int,
                 config: IntegratorConfig, n_views: int = 1) -> None:
        super().__init__()
        dim = self.embed_dim = config.dim
        self.embed = nn.Sequential(nn.LayerNorm(in_dim), nn.Linear(in_dim, dim), nn.LayerNorm(dim))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, n_slices + 1, dim))
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.view_embed = None
        if n_views > 1:
            self.view_embed = nn.Parameter(torch.zeros(1, n_views, dim))
            nn.init.trunc_normal_(self.view_embed, std=0.02)
        self.emb_drop = nn.Dropout(config.emb_dropout)
        self.blocks = nn.ModuleList(_block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, n_outputs)

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, K) of volumes; see `encode` for the arguments."""
        return self.head(self.encode(features, mask))

    def encode(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Integrate the slices of each volume into one vector.

        Args:
            features: (B, S, in_dim) float32, S = V * n_slices; values where `mask` is False
                have no influence.
            mask: (B, S) bool, True for real slices.

        Returns:
            (B, dim), the normalised class token, of which the head makes the logits.
        """
        features = features.masked_fill(~mask[..., None], 0.0)
        tokens = self.embed(features)  # (B, S, dim)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        tokens = self.emb_drop(tokens + self._places())  # (B, S + 1, dim)
        attends = torch.cat([mask.new_ones(len(mask), 1), mask], dim=1)[:, None, None, :]
        for block in self.blocks:
            tokens = block(tokens, attn_mask=attends)
        return self.norm(tokens[:, 0])

    def _places(self) -> torch.Tensor:
        """Return what the tokens' places add to them, (1, S + 1, dim); the class token first."""
        if self.view_embed is None:
            return self.pos_embed
        cls, positions = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        views = [positions + view for view in self.view_embed.split(1, dim=1)]
        return torch.cat([cls, *views], dim=1)


def _block(config: IntegratorConfig) -> Block:
    """Return timm's pre-norm block, its attention heads of a width of their own.

    Its LayerNorms have timm's epsilon, 1e-6, or that of the original SLIViT, 1e-5.
    """
    block = Block(config.dim, num_heads=1,
                  mlp_ratio=(config.mlp_dim + 0.5) / config.dim,  # timm rounds the product down
                  norm_layer=LayerNorm if config.tokens_are_slices else nn.LayerNorm,
                  proj_drop=config.dropout)
    block.attn = Attention(config.dim, config.heads, attn_head_dim=config.head_dim,
                           attn_drop=config.dropout, proj_drop=config.dropout)
    return block
