"""Wrong solutions, and correct alternative ones, as changes to models.py; test_grader.py grades them.

A change is a list of (text in models.py, replacement). A wrong solution comes with the check for its error; it must
fail that check and may fail others.
"""

from conftest import ROOT

MODELS = (ROOT / "models.py").read_text(encoding="utf-8")


SHARED_TABLES = "return ScaledEmbedding(num_users, embedding_dim), ScaledEmbedding(num_items, embedding_dim)"
BIAS = "return ZeroEmbedding(num_items, 1)"
STD = "std=1.0 / self.embedding_dim"
SHARED_P = "predictions = product.sum(dim=1) + self.B(item_ids).squeeze(1)"
SEPARATE_P = "predictions = (self.U_fact(user_ids) * self.Q_fact(item_ids)).sum(dim=1) + self.B(item_ids).squeeze(1)"
SHARED_RETURN = "return predictions, self._rate(user, item, product)"
SEPARATE_LOOKUP = "user, item = self.U_reg(user_ids), self.Q_reg(item_ids)"
SEPARATE_RETURN = "return predictions, self._rate(user, item, user * item)"
CONCATENATION = "hidden = torch.cat([user, item, product], dim=1)"
LAYERS = "layers.extend([nn.Linear(width_in, width_out), nn.ReLU()])"
LAST_LAYER = "layers.append(nn.Linear(layer_sizes[-1], 1))"
RETURN_LAYERS = "        return layers\n"
SQUEEZE = "return hidden.squeeze(1)"
LOOP = """        for layer in self.mlp_layers:
            hidden = layer(hidden)
"""
MAKE_MLP = "self.mlp_layers = self.init_mlp_layers(layer_sizes)"
MAKE_BIAS = "self.B = self.init_item_bias(num_users, num_items)"
MAKE_SHARED = "self.U, self.Q = self.init_shared_user_and_item_embeddings(num_users, num_items, embedding_dim)"
SEPARATE_TABLES = """        return (
            ScaledEmbedding(num_users, embedding_dim),
            ScaledEmbedding(num_items, embedding_dim),
            ScaledEmbedding(num_users, embedding_dim),
            ScaledEmbedding(num_items, embedding_dim),
        )
"""
FORWARD = """        if self.embedding_sharing:
            return self.forward_with"""
FORWARD_BODY = """        if self.embedding_sharing:
            return self.forward_with_embedding_sharing(user_ids, item_ids)
        return self.forward_without_embedding_sharing(user_ids, item_ids)
"""


def forward_that(statement: str, sharing: str = "True") -> list[tuple[str, str]]:
    """A forward that calls the right method and then executes a statement on p and r, with shared or separate tables."""
    return [(FORWARD_BODY, f"""        if self.embedding_sharing:
            p, r = self.forward_with_embedding_sharing(user_ids, item_ids)
        else:
            p, r = self.forward_without_embedding_sharing(user_ids, item_ids)
        if self.embedding_sharing is {sharing}:
            {statement}
        return p, r
""")]  # fmt: skip


WRONG = {
    "tables swapped": ("1a-0-basic", [(SHARED_TABLES, SHARED_TABLES.replace("num_users", "x").replace("num_items", "num_users").replace("x", "num_items"))]),
    "one table for users and items": ("1a-0-basic", [(SHARED_TABLES, "table = ScaledEmbedding(num_users, embedding_dim)\n        return table, table")]),
    "three tables": ("1a-0-basic", [(SHARED_TABLES, SHARED_TABLES + ", ZeroEmbedding(num_items, 1)")]),
    "embedding width fixed": ("1a-0-basic", [(SHARED_TABLES, SHARED_TABLES.replace("embedding_dim", "32"))]),
    "initial spread 1 / sqrt(d)": ("1a-0-basic", [(STD, "std=self.embedding_dim ** -0.5")]),
    "initial spread 1": ("1a-0-basic", [(STD, "std=1.0")]),
    "initial variance 1 / d squared taken of rows": ("1b-0-basic", [(STD, "std=1.0 / self.num_embeddings")]),
    "uniform instead of normal": ("1a-0-basic", [("nn.init.normal_(self.weight, mean=0.0, std=1.0 / self.embedding_dim)", "nn.init.uniform_(self.weight, -(3**0.5) / self.embedding_dim, 3**0.5 / self.embedding_dim)")]),
    "mean not zero": ("1a-0-basic", [("mean=0.0", "mean=0.05")]),
    "tables in double precision": ("1a-0-basic", [(SHARED_TABLES, "return ScaledEmbedding(num_users, embedding_dim, dtype=torch.float64), ScaledEmbedding(num_items, embedding_dim, dtype=torch.float64)")]),
    "one seed for all tables": ("1a-0-basic", [("        nn.init.normal_(self.weight, mean", "        torch.manual_seed(0)\n        nn.init.normal_(self.weight, mean")]),
    "tables of the sizes that the checks use": ("1a-0-basic", [(SHARED_TABLES, "return ScaledEmbedding(220, embedding_dim), ScaledEmbedding(310, embedding_dim)")]),
    "tables not trained": ("1a-0-basic", [(SHARED_TABLES, "return tuple(ScaledEmbedding(n, embedding_dim).requires_grad_(False) for n in (num_users, num_items))")]),
    "separate in the wrong order": ("1b-0-basic", [(SEPARATE_TABLES, "        return tuple(ScaledEmbedding(n, embedding_dim) for n in (num_users, num_users, num_items, num_items))\n")]),
    "separate that is shared": ("1b-0-basic", [(SEPARATE_TABLES, "        u, q = ScaledEmbedding(num_users, embedding_dim), ScaledEmbedding(num_items, embedding_dim)\n        return u, q, u, q\n")]),
    "separate tables that are copies": ("1b-0-basic", [(SEPARATE_TABLES, "        import copy\n        u, q = ScaledEmbedding(num_users, embedding_dim), ScaledEmbedding(num_items, embedding_dim)\n        return u, q, copy.deepcopy(u), copy.deepcopy(q)\n")]),
    "bias as long as the longer table": ("1c-0-basic", [(BIAS, "return ZeroEmbedding(max(num_users, num_items), 1)")]),
    "bias for users": ("1c-0-basic", [(BIAS, "return ZeroEmbedding(num_users, 1)")]),
    "bias not zero": ("1c-0-basic", [(BIAS, "return ScaledEmbedding(num_items, 1)")]),
    "bias of one dimension too many": ("1c-0-basic", [(BIAS, "return ZeroEmbedding(num_items, 32)")]),
    "init method that reads self": ("1c-0-basic", [(BIAS, "return ZeroEmbedding(self.num_items, 1)")]),
    "wrong widths": ("2-0-basic", [(LAYERS, "layers.extend([nn.Linear(width_in, width_in), nn.ReLU()])")]),
    "ReLU after the last layer": ("2-0-basic", [(LAST_LAYER, LAST_LAYER + "\n        layers.append(nn.ReLU())")]),
    "missing ReLU": ("2-0-basic", [(LAYERS, "layers.append(nn.Linear(width_in, width_out))")]),
    "sigmoid instead of ReLU": ("2-0-basic", [(LAYERS, LAYERS.replace("ReLU", "Sigmoid"))]),
    "last layer forgotten": ("2-0-basic", [(LAST_LAYER, "pass")]),
    "linear layers without bias": ("2-0-basic", [(LAST_LAYER, "layers.append(nn.Linear(layer_sizes[-1], 1, bias=False))")]),
    "layers fixed to [96, 64]": ("2-1-hidden", [("        layers = nn.ModuleList()\n", "        layer_sizes = [96, 64] if len(layer_sizes) == 2 else [layer_sizes[0], 64]\n        layers = nn.ModuleList()\n")]),
    "one ReLU however many layers": ("2-1-hidden", [(LAYERS, "layers.append(nn.Linear(width_in, width_out))\n            if len(layers) == 1:\n                layers.append(nn.ReLU())")]),
    "dropout between layers": ("2-0-basic", [(LAYERS, LAYERS.replace("nn.ReLU()", "nn.ReLU(), nn.Dropout(0.1)"))]),
    "argument changed": ("2-0-basic", [(RETURN_LAYERS, "        layer_sizes.append(1)\n        return layers\n")]),
    "plain list of layers": ("2-0-basic", [(RETURN_LAYERS, "        return list(layers)\n")]),
    "bare squeeze": ("3a-0-basic", [(SQUEEZE, "return hidden.squeeze()")]),
    "bare squeeze of the bias": ("3b-0-basic", [(SEPARATE_P, SEPARATE_P.replace(".sum(dim=1) + self.B(item_ids).squeeze(1)", ".sum(dim=1).squeeze() + self.B(item_ids).squeeze()"))]),
    "score of shape (B, 1)": ("3a-0-basic", [(SQUEEZE, "return hidden")]),
    "bias broadcast to (B, B)": ("3a-0-basic", [(SHARED_P, "predictions = product.sum(dim=1) + self.B(item_ids)")]),
    "outputs in double precision": ("3a-0-basic", [(SHARED_RETURN, "return predictions.double(), self._rate(user, item, product)")]),
    "bare squeeze in evaluation mode": ("3a-0-basic", [(SQUEEZE, "return hidden.squeeze(1) if self.training else hidden.squeeze()")]),
    "score clipped in evaluation mode": ("3a-1-basic", [(SQUEEZE, SQUEEZE + " if self.training else hidden.squeeze(1).clamp(1, 5)")]),
    "sigmoid on p in evaluation mode": ("3a-1-basic", [(SHARED_RETURN, SHARED_RETURN.replace("predictions,", "predictions if self.training else predictions.sigmoid(),"))]),
    "only the first two layers and the last": ("3a-1-basic", [(LOOP, LOOP.replace("self.mlp_layers:", "[*self.mlp_layers[:4], self.mlp_layers[-1]]:"))]),
    "outputs swapped": ("3a-1-basic", [(SHARED_RETURN, "return self._rate(user, item, product), predictions")]),
    "bias missing": ("3a-1-basic", [(SHARED_P, "predictions = product.sum(dim=1)")]),
    "bias missing, separate": ("3b-1-basic", [(SEPARATE_P, SEPARATE_P.replace(" + self.B(item_ids).squeeze(1)", ""))]),
    "bias added twice": ("3a-1-basic", [(SHARED_P, SHARED_P + " * 2")]),
    "bias of the user's row": ("3a-1-basic", [(SHARED_P, SHARED_P.replace("self.B(item_ids)", "self.B(user_ids)"))]),
    "product left out of the concatenation": ("3a-1-basic", [(CONCATENATION, "hidden = torch.cat([user, item, torch.zeros_like(product)], dim=1)")]),
    "concatenation in another order": ("3a-1-basic", [(CONCATENATION, CONCATENATION.replace("user, item, product", "item, user, product"))]),
    "product first": ("3b-1-basic", [(CONCATENATION, CONCATENATION.replace("user, item, product", "product, user, item"))]),
    "sum instead of product": ("3a-1-basic", [(CONCATENATION, CONCATENATION.replace("product]", "user + item]"))]),
    "dot product over the batch": ("3a-1-basic", [(SHARED_P, SHARED_P.replace("product.sum(dim=1)", "product.sum(dim=0)[0]"))]),
    "mean instead of sum": ("3a-1-basic", [(SHARED_P, SHARED_P.replace("product.sum", "product.mean"))]),
    "all pairs of the batch": ("3a-0-basic", [(SHARED_P, "predictions = user @ item.T + self.B(item_ids).squeeze(1)")]),
    "sigmoid on p": ("3a-1-basic", [(SHARED_RETURN, SHARED_RETURN.replace("predictions,", "predictions.sigmoid(),"))]),
    "score clipped": ("3a-1-basic", [(SQUEEZE, SQUEEZE + ".clamp(1, 5)")]),
    "score shifted": ("3b-1-basic", [(SQUEEZE, SQUEEZE + " + 3")]),
    "shared although separate": ("3b-1-basic", [(SEPARATE_LOOKUP, "user, item = self.U_fact(user_ids), self.Q_fact(item_ids)")]),
    "tables of the tasks exchanged": ("3b-1-basic", [(SEPARATE_P, SEPARATE_P.replace("_fact", "_reg")), (SEPARATE_LOOKUP, SEPARATE_LOOKUP.replace("_reg", "_fact"))]),
    "item table of the other task": ("3b-1-basic", [(SEPARATE_LOOKUP, SEPARATE_LOOKUP.replace("self.Q_reg", "self.Q_fact"))]),
    "separate although shared": ("3a-2-hidden", [(MAKE_SHARED, MAKE_SHARED + "\n            self.V = ScaledEmbedding(num_users, embedding_dim)"), (SHARED_RETURN, "with torch.no_grad():\n            self.V.weight.copy_(self.U.weight)\n        return predictions, self._rate(self.V(user_ids), item, self.V(user_ids) * item)")]),
    "rating detached": ("3a-2-hidden", [(SHARED_RETURN, "return predictions, self._rate(user.detach(), item.detach(), product.detach())")]),
    "user detached in the concatenation alone": ("3a-2-hidden", [(SHARED_RETURN, "return predictions, self._rate(user.detach(), item, product)")]),
    "bias detached": ("3a-2-hidden", [(SHARED_P, SHARED_P.replace("self.B(item_ids)", "self.B(item_ids).detach()"))]),
    "ranking computed without gradient": ("3b-2-hidden", [(SEPARATE_RETURN, "return predictions.detach(), self._rate(user, item, user * item)")]),
    "gradient leaks between the tasks": ("3b-2-hidden", [(SEPARATE_RETURN, "leak = self.U_fact(user_ids).sum() * 1e-3\n        return predictions, self._rate(user, item, user * item) + leak - leak.detach()")]),
    "a second MLP": ("3c-0-hidden", [(MAKE_MLP, MAKE_MLP + "\n        self.other = self.init_mlp_layers(layer_sizes)")]),
    "user bias besides": ("3c-0-hidden", [(MAKE_BIAS, MAKE_BIAS + "\n        self.A = ZeroEmbedding(num_users, 1)")]),
    "layers that nn.Module does not know of": ("3c-0-hidden", [(MAKE_MLP, "object.__setattr__(self, 'mlp_layers', self.init_mlp_layers(layer_sizes))")]),
    "bias that is not trained": ("3c-0-hidden", [(MAKE_BIAS, MAKE_BIAS + ".requires_grad_(False)")]),
    "all tables in every network": ("3c-0-hidden", [(MAKE_BIAS, MAKE_BIAS + "\n        if embedding_sharing:\n            self.U_reg, self.Q_reg, _, _ = self.init_separate_user_and_item_embeddings(num_users, num_items, embedding_dim)")]),
    "started again by the constructor": ("3c-0-hidden", [(MAKE_MLP, MAKE_MLP + "\n        [nn.init.normal_(p, std=0.02) for p in self.parameters()]")]),
    "layers that start at zero": ("3c-0-hidden", [(MAKE_MLP, MAKE_MLP + "\n        [nn.init.zeros_(p) for p in self.mlp_layers.parameters()]")]),
    "other default arguments": ("3c-0-hidden", [("embedding_dim: int = 32", "embedding_dim: int = 64"), ("= [96, 64],", "= [192, 64],")]),
    "separate by default": ("3c-0-hidden", [("embedding_sharing: bool = True", "embedding_sharing: bool = False")]),
    "one layer for equal widths": ("3c-0-hidden", [(LAYERS, "same = next((l for l in layers if isinstance(l, nn.Linear) and l.weight.shape == (width_out, width_in)), None)\n            layers.extend([same or nn.Linear(width_in, width_out), nn.ReLU()])")]),
    "fresh tables whenever it is trained": ("3c-1-hidden", [(FORWARD, "        self.steps = getattr(self, 'steps', 0) + 1\n        if self.steps % 50 == 0:\n            self.B.reset_parameters(), [t.reset_parameters() for t in self.children() if isinstance(t, ScaledEmbedding)]\n" + FORWARD)]),
    "forward cuts ratings at 0, shared": ("3a-1-basic", forward_that("r = r.relu()")),
    "forward cuts ratings at 0, separate": ("3b-1-basic", forward_that("r = r.relu()", "False")),
    "forward clamps ratings, shared": ("3a-1-basic", forward_that("r = r.clamp(1, 5)")),
    "forward clamps ratings, separate": ("3b-1-basic", forward_that("r = r.clamp(1, 5)", "False")),
    "forward clamps ratings in evaluation mode": ("3b-1-basic", forward_that("r = r if self.training else r.clamp(0.5, 5)", "False")),
    "forward swaps, shared": ("3a-1-basic", forward_that("p, r = r, p")),
    "forward swaps, separate": ("3b-1-basic", forward_that("p, r = r, p", "False")),
    "forward detaches the rating": ("3a-2-hidden", forward_that("r = r.detach()")),
    "forward detaches the ranking, separate": ("3b-2-hidden", forward_that("p = p.detach()", "False")),
    "forward squeezes, shared": ("3a-0-basic", forward_that("p = p.squeeze()")),
    "forward squeezes, separate": ("3b-0-basic", forward_that("r = r.squeeze()", "False")),
    "gradients that point nowhere after a while": ("3c-2-hidden", [(FORWARD, "        self.steps = getattr(self, 'steps', 0) + 1\n        if self.steps > 20:\n            [p.data.mul_(0.9) for p in self.parameters()]\n" + FORWARD)]),
}  # fmt: skip

CORRECT = {
    "another order of attributes": [
        (MAKE_MLP, "pass"),
        ("        if embedding_sharing:\n            self.U", f"        {MAKE_MLP}\n        if embedding_sharing:\n            self.U"),
    ],
    "F.embedding": [(SHARED_P, "predictions = product.sum(1) + torch.nn.functional.embedding(item_ids, self.B.weight)[:, 0]")],
    "einsum": [(SHARED_P, "predictions = torch.einsum('bd,bd->b', user, item) + self.B(item_ids).view(-1)")],
    "bmm": [(SHARED_P, "predictions = torch.bmm(user.unsqueeze(1), item.unsqueeze(2)).view(-1) + self.B(item_ids).flatten()")],
    "nn.Sequential inside the ModuleList": [(LAYERS, "layers.append(nn.Sequential(nn.Linear(width_in, width_out), nn.ReLU()))")],
    "loop by index": [(LOOP, "        for number in range(len(self.mlp_layers)):\n            hidden = self.mlp_layers[number](hidden)\n")],
    "hstack and reshape": [(CONCATENATION, "hidden = torch.hstack((user, item, torch.mul(user, item)))"), (SQUEEZE, "return hidden.reshape(-1)")],
    "plain nn.Embedding with its own start": [
        (SHARED_TABLES, "u, q = nn.Embedding(num_users, embedding_dim), nn.Embedding(num_items, embedding_dim)\n        for t in (u, q):\n            t.weight.data.normal_(0, 1.0 / t.embedding_dim)\n        return u, q"),
    ],
    "lists instead of tuples": [(SEPARATE_TABLES, "        return [ScaledEmbedding(n, embedding_dim) for n in (num_users, num_items) * 2]\n")],
    "static methods": [("    def init_item_bias(self, ", "    @staticmethod\n    def init_item_bias(")],
    "helper method": [(BIAS, "return self._zeros(num_items)\n\n    def _zeros(self, rows):\n        return ZeroEmbedding(rows, 1)")],
    "own kind of linear layer": [(LAST_LAYER, "layers.append(type('Dense', (nn.Linear,), {})(layer_sizes[-1], 1))")],
    "a block of its own in the ModuleList": [(LAYERS, "layers.append(Block(width_in, width_out))"), ("class MultiTaskNet", "class Block(nn.Module):\n    def __init__(self, width_in, width_out):\n        super().__init__()\n        self.linear, self.relu = nn.Linear(width_in, width_out), nn.ReLU()\n\n    def forward(self, x):\n        return self.relu(self.linear(x))\n\n\nclass MultiTaskNet")],
    "generator": [(SHARED_TABLES, "return (ScaledEmbedding(n, embedding_dim) for n in (num_users, num_items))")],
    "stacked outputs": [(SHARED_RETURN, "return torch.stack([predictions, self._rate(user, item, product)])")],
    "kaiming start": [(MAKE_MLP, MAKE_MLP + "\n        [nn.init.kaiming_uniform_(p, nonlinearity='relu') for p in self.mlp_layers.parameters() if p.dim() > 1]")],
    "xavier start and a bias of 3": [(MAKE_MLP, MAKE_MLP + "\n        [nn.init.xavier_uniform_(p) for p in self.mlp_layers.parameters() if p.dim() > 1]\n        nn.init.constant_(self.mlp_layers[-1].bias, 3.0)")],
    "prints and warns": [(FORWARD, "        print('hello', item_ids.shape)\n        import warnings\n        warnings.warn('hm')\n" + FORWARD)],
}  # fmt: skip


def changed(changes: list[tuple[str, str]]) -> str:
    """The text of models.py with the given changes."""
    source = MODELS
    for old, new in changes:
        assert old in source, f"models.py does not hold {old!r}"
        source = source.replace(old, new)
    return source
