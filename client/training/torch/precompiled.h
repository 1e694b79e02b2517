// What every LibTorch file of this folder needs; see CMakeLists.txt.
#pragma once

#include <torch/script.h>
#include <torch/torch.h>
