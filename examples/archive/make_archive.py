#!/usr/bin/env python3
"""Writes model.pt: a TorchScript archive that Selvage can train.

    /usr/bin/python3 make_archive.py [model.pt]      (Debian: python3-torch)

A module needs three methods. forward is compiled anyway; the other two say so
with @torch.jit.export. Parameters and buffers become the tensor table, as
model.yaml lists them; selvage.yaml inside the archive lets `selvage model
package model.pt` do without that file.
"""
import argparse

import torch
from torch import nn

DESCRIPTION = r"""
inputs:
  - {name: x, dtype: u8, shape: [1, 28, 28]}
  - {name: y, dtype: i64, shape: []}
metrics: [accuracy, loss]
roles:
  # Each device normalises with statistics of its own (FedBN).
  - {match: '^norm\.(weight|bias|running_mean|running_var)$', role: personal}
"""


class SmallConvNet(nn.Module):
    """Two convolutions with batch normalisation, then a linear head."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(16 * 7 * 7, 10)

    def forward(self, x):
        h = torch.relu(self.norm(self.conv1(x.float() / 255)))
        h = torch.relu(self.conv2(h))
        return self.head(self.drop(h.flatten(1)))

    @torch.jit.export
    def training_loss(self, x, y):
        return nn.functional.cross_entropy(self.forward(x), y)

    @torch.jit.export
    def example_scores(self, x, y):
        z = self.forward(x)
        loss = nn.functional.cross_entropy(z, y, reduction="none")
        return torch.stack([(z.argmax(1) == y).float(), loss], 1)


def main():
    parser = argparse.ArgumentParser(description="Writes model.pt: a "
                                     "TorchScript archive for Selvage.")
    parser.add_argument("path", nargs="?", default="model.pt")
    path = parser.parse_args().path
    torch.manual_seed(0)
    module = torch.jit.script(SmallConvNet())
    torch.jit.save(module, path, _extra_files={"selvage.yaml": DESCRIPTION})


if __name__ == "__main__":
    main()
