"""Right solutions of the homework, written differently: the starter with other bodies. Each gets 14 of 14.

They keep what starter/models.py promises, names of attributes and methods, arguments and results, and nothing else.
"""

import re

from conftest import ROOT

STARTER = (ROOT / "starter" / "models.py").read_text(encoding="utf-8")
HEADS = {
    "shared": "init_shared_user_and_item_embeddings",
    "separate": "init_separate_user_and_item_embeddings",
    "bias": "init_item_bias",
    "layers": "init_mlp_layers",
    "with_sharing": "forward_with_embedding_sharing",
    "without_sharing": "forward_without_embedding_sharing",
}

MAKE_LAYERS = "        self.mlp_layers = self.init_mlp_layers(layer_sizes)\n"

# Bodies that the solutions below share unless they have their own. {tables} are filled in for each forward method.
PLAIN = {
    "shared": "return ScaledEmbedding(num_users, embedding_dim), ScaledEmbedding(num_items, embedding_dim)",
    "separate": "return tuple(ScaledEmbedding(rows, embedding_dim) for rows in (num_users, num_items) * 2)",
    "bias": "return ZeroEmbedding(num_items, 1)",
    "layers": """widths = [*layer_sizes, 1]
dense = [nn.Linear(a, b) for a, b in zip(widths, widths[1:])]
return nn.ModuleList([part for layer in dense for part in (layer, nn.ReLU())][:-1])""",
    "forward": """u, q = self.{ranking_user}(user_ids), self.{ranking_item}(item_ids)
p = (u * q).sum(-1) + self.B(item_ids)[:, 0]
u, q = self.{rating_user}(user_ids), self.{rating_item}(item_ids)
x = torch.cat((u, q, u * q), 1)
for layer in self.mlp_layers:
    x = layer(x)
return p, x[:, 0]""",
}
BLOCK = '''class Block(nn.Module):
    """A dense layer and its ReLU."""

    def __init__(self, width_in, width_out):
        super().__init__()
        self.dense, self.activation = nn.Linear(width_in, width_out), nn.ReLU()

    def forward(self, x):
        return self.activation(self.dense(x))


'''
TOWER = '''class Tower(nn.Module):
    """The whole MLP."""

    def __init__(self, widths):
        super().__init__()
        self.parts = nn.ModuleList()
        for a, b in zip(widths, widths[1:]):
            self.parts.extend((nn.Linear(a, b), nn.ReLU(inplace=True)))
        self.parts.append(nn.Linear(widths[-1], 1))

    def forward(self, x):
        for part in self.parts:
            x = part(x)
        return x


'''
HELPERS = """def _dot(u, q):
    return torch.bmm(u[:, None, :], q[:, :, None]).flatten()


def _table(rows, width, kind=ScaledEmbedding):
    return kind(num_embeddings=rows, embedding_dim=width)


"""
# name: bodies; "classes" stands before MultiTaskNet, "edits" are further (text, replacement) pairs.
SOLUTIONS: dict[str, dict] = {
    "einsum": {
        "forward": PLAIN["forward"].replace("(u * q).sum(-1)", "torch.einsum('bd,bd->b', u, q)"),
    },
    "functional": {
        "forward": """embed = nn.functional.embedding
u, q = embed(user_ids, self.{ranking_user}.weight), embed(item_ids, self.{ranking_item}.weight)
p = torch.linalg.vecdot(u, q) + embed(item_ids, self.B.weight).flatten()
u, q = embed(user_ids, self.{rating_user}.weight), embed(item_ids, self.{rating_item}.weight)
x = torch.hstack([u, q, u.mul(q)])
dense = [layer for layer in self.mlp_layers if isinstance(layer, nn.Linear)]
for layer in dense[:-1]:
    x = nn.functional.relu(nn.functional.linear(x, layer.weight, layer.bias))
return p, nn.functional.linear(x, dense[-1].weight, dense[-1].bias).reshape(-1)""",
    },
    "sequential blocks": {
        "layers": """blocks = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in zip(layer_sizes, layer_sizes[1:])]
return nn.ModuleList([*blocks, nn.Linear(layer_sizes[-1], 1)])""",
    },
    "one sequential of all": {
        "layers": PLAIN["layers"].replace(
            "return nn.ModuleList([part for", "return nn.ModuleList([nn.Sequential(*[part for"
        ).replace("[:-1])", "[:-1])])"),
        "forward": PLAIN["forward"].replace(
            "for layer in self.mlp_layers:\n    x = layer(x)\nreturn p, x[:, 0]",
            "return p, self.mlp_layers[0](x).flatten()",
        ),
    },
    "blocks of its own": {
        "classes": BLOCK,
        "layers": """layers = nn.ModuleList(Block(a, b) for a, b in zip(layer_sizes, layer_sizes[1:]))
return layers.append(nn.Linear(layer_sizes[-1], 1))""",
    },
    "one block of its own": {
        "classes": TOWER,
        "layers": "return nn.ModuleList([Tower(layer_sizes)])",
    },
    "helpers and static methods": {
        "classes": HELPERS,
        "shared": "return _table(num_users, embedding_dim), _table(num_items, embedding_dim)",
        "bias": "return _table(num_items, 1, ZeroEmbedding)",
        "forward": "return self._ranking(user_ids, item_ids), self._rating(user_ids, item_ids)",
        "edits": [
            ("    def init_item_bias(self, ", "    @staticmethod\n    def init_item_bias("),
            ("    def init_mlp_layers(self, ", "    @staticmethod\n    def init_mlp_layers("),
            ("    def score_items(", '''    def _tables(self, task):
        return (self.U, self.Q) if self.embedding_sharing else (getattr(self, "U" + task), getattr(self, "Q" + task))

    def _ranking(self, user_ids, item_ids):
        users, items = self._tables("_fact")
        return _dot(users(user_ids), items(item_ids)) + self.B.weight[item_ids].squeeze(-1)

    def _rating(self, user_ids, item_ids):
        users, items = self._tables("_reg")
        x = torch.cat([users(user_ids), items(item_ids), users(user_ids) * items(item_ids)], dim=-1)
        return nn.Sequential(*self.mlp_layers)(x).view(-1)

    def score_items('''),
        ],
    },
    "generators and lists": {
        "shared": "return (ScaledEmbedding(rows, embedding_dim) for rows in (num_users, num_items))",
        "separate": "return [ScaledEmbedding(rows, embedding_dim) for rows in [num_users, num_items] * 2]",
        "forward": PLAIN["forward"].replace("return p, x[:, 0]", "return [p, x[:, 0]]"),
    },
    "plain tables and one stacked result": {
        "shared": """tables = nn.Embedding(num_users, embedding_dim), nn.Embedding(num_items, embedding_dim)
for table in tables:
    table.weight.data.normal_(0, 1 / embedding_dim)
return tables""",
        "bias": "return nn.Embedding.from_pretrained(torch.zeros(num_items, 1), freeze=False)",
        "forward": PLAIN["forward"].replace("return p, x[:, 0]", "return torch.stack([p, x[:, 0]])"),
    },
    "in single precision, layers made first": {
        "forward": PLAIN["forward"].replace("(u, q, u * q), 1)", "(u, q, u * q), 1).float()").replace(
            "return p, x[:, 0]", "return p.float(), x[:, 0].float()"
        ),
        "edits": [
            (MAKE_LAYERS, ""),
            ("        self.num_users = num_users\n", MAKE_LAYERS + "        self.num_users = num_users\n"),
        ],
    },
}  # fmt: skip


def source_of(name: str) -> str:
    """The models.py of a solution."""
    solution = SOLUTIONS[name]
    bodies = PLAIN | solution
    shared = {"ranking_user": "U", "ranking_item": "Q", "rating_user": "U", "rating_item": "Q"}
    separate = {"ranking_user": "U_fact", "ranking_item": "Q_fact", "rating_user": "U_reg", "rating_item": "Q_reg"}
    bodies |= {
        "with_sharing": bodies["forward"].format(**shared),
        "without_sharing": bodies["forward"].format(**separate),
    }
    source = STARTER
    for key, method in HEADS.items():
        body = "\n".join("        " + line for line in bodies[key].splitlines())
        source, count = re.subn(rf'        raise NotImplementedError\("write {method}"\)', lambda _: body, source)  # noqa: B023
        assert count == 1, f"the starter does not hold {method}"
    edits = [("class MultiTaskNet", solution.get("classes", "") + "class MultiTaskNet"), *solution.get("edits", ())]
    for old, new in edits:
        assert old in source, f"the starter does not hold {old!r}"
        source = source.replace(old, new, 1)
    return source
