# What somebody does, from 43 features of 10 s of a phone's accelerometer:
# histograms of x, y and z (10 bins each), then of each axis the mean, the time
# between peaks in ms (0: none), the absolute and the standard deviation, and the
# mean length of the vector.

def forward(self, x):
    x = torch.cat([x[:, :33], torch.log1p(x[:, 33:36]), x[:, 36:]], 1)
    # To about zero mean and unit deviation, kind by kind.
    h = torch.cat([(x[:, 0:30] - 0.1) * 18, (x[:, 30:33] - 2.5) / 4, (x[:, 33:36] - 6.9) / 1.5,
                   (x[:, 36:42] - 4.8) / 2.8, (x[:, 42:43] - 11.5) / 2.5], 1).clamp(-4, 4)
    h = torch.relu(torch.linear(h, self.body1.weight, self.body1.bias))
    h = torch.relu(torch.linear(h, self.body2.weight, self.body2.bias))
    return torch.linear(h, self.head.weight, self.head.bias)

def training_loss(self, x, y):
    return torch.cross_entropy_loss(self.forward(x), y)

def example_scores(self, x, y):
    z = self.forward(x)
    return torch.stack([(z.argmax(1) == y).float(), torch.cross_entropy_loss(z, y, None, 0)], 1)
