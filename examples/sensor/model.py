def logits(self, x):
    h = torch.tanh(torch.linear(x, self.body.weight, self.body.bias))
    return torch.linear(h, self.head.weight, self.head.bias)

def forward(self, x):
    return torch.softmax(self.logits(x), 1)

def training_loss(self, x, y):
    return torch.cross_entropy_loss(self.logits(x), y)

def example_scores(self, x, y):
    z = self.logits(x)
    return torch.stack([(z.argmax(1) == y).float(), torch.cross_entropy_loss(z, y, None, 0)], 1)
