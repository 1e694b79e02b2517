# The same network with the accelerometer alone: x is [n, 3, 128] in g. What the
# phone does in a window and how it lies in it are six channels.

def forward(self, x):
    gravity = x.mean(2, True)
    x = torch.cat([(x - gravity) * 5.0, (gravity * 2.0).expand_as(x)], 1)
    h = torch.relu(torch.conv1d(x, self.conv1.weight, self.conv1.bias))
    h = torch.max_pool1d(h, 2)
    h = torch.relu(torch.conv1d(h, self.conv2.weight, self.conv2.bias))
    h = torch.max_pool1d(h, 4).flatten(1)
    h = torch.relu(torch.linear(h, self.fc.weight, self.fc.bias))
    return torch.linear(h, self.head.weight, self.head.bias)

def training_loss(self, x, y):
    return torch.cross_entropy_loss(self.forward(x), y)

def example_scores(self, x, y):
    z = self.forward(x)
    return torch.stack([(z.argmax(1) == y).float(), torch.cross_entropy_loss(z, y, None, 0)], 1)
