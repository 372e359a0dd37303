"""Modules as people write them, for the tests of taking affine ends off."""

import torch
from torch import nn
from torch.nn import functional as F


class ResidualMLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(6, 5), nn.BatchNorm1d(5)
        self.blocks = nn.ModuleList(nn.Linear(5, 5) for _ in range(2))
        self.last = nn.Linear(5, 3)

    def forward(self, x):
        h = self.norm(self.first(x))
        for block in self.blocks:
            h = h + F.gelu(block(h))
        return self.last(h)


class ResidualBlock(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(n, n, 3, padding=1), nn.BatchNorm2d(n)
        self.again, self.relu = nn.Conv2d(n, n, 1), nn.ReLU(inplace=True)

    def forward(self, x):
        h = self.again(self.relu(self.norm(self.conv(x))))
        h += x
        return self.relu(h)


class ResidualCNN(nn.Module):
    """Like torchvision's: norm behind convolution, ReLU in place, global pooling, flatten."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False)
        self.norm, self.relu = nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.blocks = nn.Sequential(ResidualBlock(4), ResidualBlock(4))
        self.pool, self.last = nn.AdaptiveAvgPool2d(1), nn.Linear(4, 3)

    def forward(self, x):
        h = self.blocks(self.relu(self.norm(self.conv(x))))
        return self.last(torch.flatten(self.pool(h), 1))


class Functional(nn.Module):
    """Weights as bare parameters, functions instead of layers, standardised by buffers."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(4, 6)), nn.Parameter(torch.empty(4))
        self.out = nn.Parameter(torch.empty(4, 2))
        self.register_buffer("mean", torch.linspace(0, 1, 6))
        self.register_buffer("sd", torch.linspace(1, 2, 6))

    def forward(self, x):
        h = F.linear((x - self.mean) / self.sd, self.weight, self.bias)
        h = F.dropout(torch.tanh(h), training=self.training)
        return 2 * (h @ self.out) + 1


class ConditionsBehind(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.embedding = nn.Linear(6, 4), nn.Embedding(3, 4)
        self.last = nn.Linear(4, 2)

    def forward(self, x, conditions=None):
        h = self.first(x)
        if conditions is not None:
            h = h + self.embedding(conditions)
        return self.last(F.silu(h))


class ConditionsBefore(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.first = nn.Embedding(3, 2), nn.Linear(8, 4)
        self.last = nn.Linear(4, 2)

    def forward(self, x, conditions):
        h = torch.cat([x, self.embedding(conditions)], dim=1)
        return self.last(F.silu(self.first(h)))


class TwoBranches(nn.Module):
    """The sum of two affine branches in, a weighted sum of two out."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 4), nn.Linear(3, 4, bias=False)
        self.c, self.d = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x):
        h = torch.sigmoid(self.a(x) - self.b(x[:, ::2]))
        return self.c(h) + 0.5 * self.d(h)


class SharedLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared, self.last = nn.Linear(5, 5), nn.Linear(5, 2)

    def forward(self, x):
        return self.last(torch.tanh(self.shared(torch.tanh(self.shared(x)))))


class TiedEnds(nn.Module):
    """An autoencoder whose last weight is the first one, transposed."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 3)
        self.bias = nn.Parameter(torch.empty(6))

    def forward(self, x):
        return F.linear(torch.tanh(self.first(x)), self.first.weight.t(), self.bias)


class InPlace(nn.Module):
    """Calls in place whose results nobody takes."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 4), nn.Linear(4, 2)

    def forward(self, x):
        h = self.first(x)
        h.relu_()
        return self.last(h)


class Branching(nn.Module):
    """Control flow on values between two ends that can be followed."""

    class Middle(nn.Module):
        def forward(self, h):
            return h.exp().clamp(max=5) if h.mean() > 1e6 else torch.tanh(h)

    def __init__(self):
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(6, 4), self.Middle(), nn.Linear(4, 2)

    def forward(self, x):
        return self.last(self.middle(self.first(x)))


class Untraceable(nn.Module):
    """Control flow on values at the top."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 4), nn.Linear(4, 2)

    def forward(self, x):
        h = self.first(x)
        return self.last(torch.tanh(h)) if float(h.detach().abs().max()) < 1e9 else h[:, :2]


class Views(nn.Module):
    """Shapes taken from the input: the number of rows must not be recorded."""

    def __init__(self):
        super().__init__()
        self.conv, self.last = nn.Conv2d(1, 2, 3), nn.Linear(2 * 4 * 4, 3)

    def forward(self, x):
        n = x.shape[0]
        if x.ndim == 3:
            x = x.unsqueeze(1)
        assert x.shape[1] == 1
        h = F.relu(self.conv(x))
        n_rows, n_channels, height, width = h.size()
        h = F.avg_pool2d(h.view(n_rows * n_channels, 1, height, width), 1)
        return self.last(h.view(n, -1)).reshape(x.size(0), -1)


class Attention(nn.Module):
    """Tokens, a learnt position, multi-head attention, a transformer layer, mean over tokens."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3, 4)
        self.position = nn.Parameter(torch.empty(5, 4))
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.last = nn.Linear(4, 2)

    def forward(self, x):
        h = self.embed(x) + self.position
        h = h + self.attention(h, h, h, need_weights=False)[0]
        return self.last(self.layer(h).mean(dim=1))


class Patches(nn.Module):
    """A vision transformer: patches, a class token for each row, positions."""

    def __init__(self):
        super().__init__()
        self.conv, self.token = nn.Conv2d(1, 4, 4, stride=4), nn.Parameter(torch.empty(1, 1, 4))
        self.position = nn.Parameter(torch.empty(1, 5, 4))
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.norm, self.last = nn.LayerNorm(4), nn.Linear(4, 2)

    def forward(self, x):
        h = self.conv(x).flatten(2).transpose(1, 2)
        h = torch.cat([self.token.expand(x.shape[0], -1, -1), h], dim=1)
        return self.last(self.norm(self.layer(h + self.position)[:, 0]))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.lstm = nn.Linear(3, 2), nn.LSTM(2, 4, batch_first=True)
        self.last = nn.Linear(4, 2)

    def forward(self, x):
        h, _state = self.lstm(self.embed(x))
        return self.last(h[:, -1])


class Clamped(nn.Module):
    """A first step that is affine on the data, and nowhere else."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.last(torch.tanh(self.first(x.clamp(-50, 50))))


class SingleOutput(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 4), nn.Linear(4, 1)

    def forward(self, x):
        return self.last(torch.tanh(self.first(x))).squeeze(-1)


class WritesOnItself(nn.Module):
    """Keeps what it has seen."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 4), nn.Linear(4, 2)
        self.seen, self.n_calls = [], 0

    def forward(self, x):
        self.hidden = self.first(x)
        self.seen.append(self.hidden)
        self.n_calls += 1
        return self.last(torch.tanh(self.hidden))


class LowRank(nn.Module):
    """A narrow place before a wide first layer, and another before the outputs."""

    def __init__(self):
        super().__init__()
        self.narrow, self.wide = nn.Linear(6, 2), nn.Linear(2, 20)
        self.latents, self.last = nn.Linear(20, 3), nn.Linear(3, 9)

    def forward(self, x):
        return self.last(self.latents(torch.tanh(self.wide(self.narrow(x)))))
