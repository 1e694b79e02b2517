# A number from a vector: nothing in the runtime knows about classes.

def forward(self, x):
    h = torch.tanh(torch.linear(x, self.hidden.weight, self.hidden.bias))
    return torch.linear(h, self.out.weight, self.out.bias).squeeze(1)

def training_loss(self, x, y):
    return torch.mse_loss(self.forward(x), y)

def example_scores(self, x, y):
    error = self.forward(x) - y
    return torch.stack([error * error, error.abs()], 1)
