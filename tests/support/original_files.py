"""Models of the original SLIViT with random weights, and what they predict: plain torch alone.

Written from the original's tensors and formulas, not from this package, which it is to check.
"""

import torch
import torch.nn.functional as F

DIMS, DEPTHS = (96, 192, 384, 768), (3, 3, 9, 3)  # of ConvNeXt tiny
EMBEDDINGS, ENCODER = "feature_extractor.0", "feature_extractor.1"


def shapes_of_backbone():
    """Return the shape of every backbone tensor by its name in slivit.pth."""
    shapes = {f"{EMBEDDINGS}.patch_embeddings": (96, 3, 4, 4), f"{EMBEDDINGS}.layernorm": (96,)}
    layer_scales = {}
    for s, (dim, depth) in enumerate(zip(DIMS, DEPTHS, strict=True)):
        stage = f"{ENCODER}.stages.{s}"
        if s:
            shapes[f"{stage}.downsampling_layer.0"] = (DIMS[s - 1],)
            shapes[f"{stage}.downsampling_layer.1"] = (dim, DIMS[s - 1], 2, 2)
        for i in range(depth):
            layer = f"{stage}.layers.{i}"
            shapes |= {f"{layer}.dwconv": (dim, 1, 7, 7), f"{layer}.layernorm": (dim,),
                       f"{layer}.pwconv1": (4 * dim, dim), f"{layer}.pwconv2": (dim, 4 * dim)}
            layer_scales[f"{layer}.layer_scale_parameter"] = (dim,)
    return _with_parts(shapes) | layer_scales


def shapes_of_integrator(n_slices, in_dim, dim, depth, heads, mlp_dim):
    """Return the shape of every integrator tensor."""
    inner = 64 * heads
    shapes = {"to_patch_embedding.1": (in_dim,), "to_patch_embedding.2": (dim, in_dim),
              "to_patch_embedding.3": (dim,), "transformer.norm": (dim,), "mlp_head": (1, dim)}
    for i in range(depth):
        layer = f"transformer.layers.{i}"
        shapes |= {f"{layer}.0.norm": (dim,), f"{layer}.1.net.0": (dim,),
                   f"{layer}.1.net.1": (mlp_dim, dim), f"{layer}.1.net.4": (dim, mlp_dim)}
        if (heads, dim) != (1, 64):
            shapes[f"{layer}.0.to_out.0"] = (dim, inner)
    return _with_parts(shapes) | {
        "pos_embedding": (1, n_slices + 1, dim), "cls_token": (1, 1, dim),
        **{f"transformer.layers.{i}.0.to_qkv.weight": (3 * inner, dim) for i in range(depth)}}


def random_model(side=64, n_slices=3, dim=48, depth=2, heads=3, mlp_dim=80, faint=1.0, seed=0):
    """Return a slivit.pth's tensors, all random; `faint` scales what adds to the tokens."""
    generator = torch.Generator().manual_seed(seed)
    shapes = shapes_of_backbone() | shapes_of_integrator(
        n_slices, 768 * (side // 32) ** 2, dim, depth, heads, mlp_dim)
    state = {}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=generator)
        if name.endswith("layer_scale_parameter"):
            values = 0.3 * values
        elif len(shape) > 1 and name.endswith("weight"):
            values = values / values[0].numel() ** 0.5
        elif len(shape) == 1:
            values = 0.2 * values + name.endswith("weight")
        if name.startswith(("pos_", "cls_", "to_patch_embedding.3")) or ".to_out" in name \
                or ".net.4" in name:
            values = faint * values
        state[name] = values
    return state


def reference_logits(state, volumes, tiling):
    """Return the logits (B,) of volumes, uint8 (B, N, H, W), as the original computes them."""
    return torch.cat([_logit(state, volume, tiling) for volume in volumes])


@torch.no_grad()
def _logit(state, volume, tiling):
    slices = (volume.float() / 255)[:, None].expand(-1, 3, -1, -1)
    picture = torch.cat(list(slices), dim={"height": 1, "width": 2}[tiling])[None]
    maps = _backbone(state, picture)
    return _transformer(state, maps.reshape(1, len(volume), -1))


def _backbone(state, x):
    def norm(x, name):
        x = F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], *_parts(state, name), eps=1e-6)
        return x.permute(0, 3, 1, 2)

    x = F.conv2d(x, *_parts(state, f"{EMBEDDINGS}.patch_embeddings"), stride=4)
    x = norm(x, f"{EMBEDDINGS}.layernorm")
    for s, depth in enumerate(DEPTHS):
        stage = f"{ENCODER}.stages.{s}"
        if s:
            x = norm(x, f"{stage}.downsampling_layer.0")
            x = F.conv2d(x, *_parts(state, f"{stage}.downsampling_layer.1"), stride=2)
        for i in range(depth):
            layer = f"{stage}.layers.{i}"
            y = F.conv2d(x, *_parts(state, f"{layer}.dwconv"), padding=3, groups=x.shape[1])
            y = norm(y, f"{layer}.layernorm").permute(0, 2, 3, 1)
            y = F.gelu(F.linear(y, *_parts(state, f"{layer}.pwconv1")))
            y = F.linear(y, *_parts(state, f"{layer}.pwconv2"))
            y = y * state[f"{layer}.layer_scale_parameter"]
            x = x + y.permute(0, 3, 1, 2)
    return x


def _transformer(state, x):
    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], *_parts(state, name), eps=1e-5)

    x = F.linear(norm(x, "to_patch_embedding.1"), *_parts(state, "to_patch_embedding.2"))
    x = torch.cat([state["cls_token"], norm(x, "to_patch_embedding.3")], dim=1)
    x = x + state["pos_embedding"]
    depth = sum(name.endswith("to_qkv.weight") for name in state)
    for layer in (f"transformer.layers.{i}" for i in range(depth)):
        y = F.linear(norm(x, f"{layer}.0.norm"), state[f"{layer}.0.to_qkv.weight"])
        q, k, v = (part.unflatten(-1, (-1, 64)).transpose(1, 2) for part in y.chunk(3, dim=-1))
        y = ((q @ k.transpose(-2, -1) / 8).softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
        if f"{layer}.0.to_out.0.weight" in state:
            y = F.linear(y, *_parts(state, f"{layer}.0.to_out.0"))
        x = x + y
        y = F.gelu(F.linear(norm(x, f"{layer}.1.net.0"), *_parts(state, f"{layer}.1.net.1")))
        x = x + F.linear(y, *_parts(state, f"{layer}.1.net.4"))
    return F.linear(norm(x, "transformer.norm")[:, 0], *_parts(state, "mlp_head"))[:, 0]


def _with_parts(shapes):
    return {f"{name}.{part}": shape if part == "weight" else shape[:1]
            for name, shape in shapes.items() for part in ("weight", "bias")}


def _parts(state, name):
    return state[f"{name}.weight"], state[f"{name}.bias"]
