// LeNet-5 (LeCun et al., 1998) with ReLU and max pooling, for 28 x 28 grey
// images and 10 classes: the example of a native architecture.
//
// Inputs: x u8 [1, 28, 28], y i64 []. Metrics: accuracy, loss. Tensors:
// {conv1,conv2,fc1,fc2,fc3}.{weight,bias}.
#pragma once

#include "client/training/torch/torch_trainer.h"

namespace selvage::client {

// To register: options.native["lenet5"] = LeNet5Factory().
NativeFactory LeNet5Factory();

}  // namespace selvage::client
