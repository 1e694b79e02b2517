# What somebody does, from 2.56 s of a phone's motion sensors: two convolutions
# over time and two layers. x is [n, channels, 128] in g and rad/s; the channels
# are the accelerometer's three, the same without gravity, the gyroscope's three.

def forward(self, x):
    scale = torch.tensor([2.5, 2.5, 2.5, 5.0, 8.0, 8.0, 2.5, 2.5, 2.5])  # to about unit deviation
    x = x * scale[:x.size(1)].unsqueeze(1)
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
