# The next character, at each of 80 places, from the characters before it: an
# embedding and three convolutions that look back only, over 15 characters.

def look_back(self, x, weight, bias):
    return torch.conv1d(torch.constant_pad_nd(x, [weight.size(2) - 1, 0]), weight, bias)

def logits(self, x):
    h = torch.embedding(self.embed.weight, x.long()).transpose(1, 2)
    h = torch.relu(self.look_back(h, self.conv1.weight, self.conv1.bias))
    h = h + torch.relu(self.look_back(h, self.conv2.weight, self.conv2.bias))
    h = h + torch.relu(self.look_back(h, self.conv3.weight, self.conv3.bias))
    return torch.conv1d(h, self.head.weight, self.head.bias)    # [n, characters, places]

def forward(self, x):
    return self.logits(x)[:, :, -1]

def training_loss(self, x, y):
    return torch.cross_entropy_loss(self.logits(x), y.long())

def example_scores(self, x, y):
    z = self.logits(x)
    return torch.stack([(z.argmax(1) == y.long()).float().mean(1), torch.cross_entropy_loss(z, y.long(), None, 0).mean(1)], 1)
