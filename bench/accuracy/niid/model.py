# The CNN of NIID-Bench (Li et al., 2022) for 28 x 28 grey images: 44,426
# parameters.

def forward(self, x):
    h = x.float() / 255
    h = torch.max_pool2d(torch.relu(torch.conv2d(h, self.conv1.weight, self.conv1.bias)), [2, 2])
    h = torch.max_pool2d(torch.relu(torch.conv2d(h, self.conv2.weight, self.conv2.bias)), [2, 2])
    h = torch.relu(torch.linear(h.flatten(1), self.fc1.weight, self.fc1.bias))
    h = torch.relu(torch.linear(h, self.fc2.weight, self.fc2.bias))
    return torch.linear(h, self.fc3.weight, self.fc3.bias)

def training_loss(self, x, y):
    return torch.cross_entropy_loss(self.forward(x), y)

def example_scores(self, x, y):
    z = self.forward(x)
    return torch.stack([(z.argmax(1) == y).float(), torch.cross_entropy_loss(z, y, None, 0)], 1)
