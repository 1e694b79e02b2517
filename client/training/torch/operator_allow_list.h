// The operators a program may use. TorchScript can otherwise read and write
// files, print, look at memory it does not own, and call into whatever the
// process registered.
#pragma once

#include <span>
#include <string_view>

namespace selvage::client::torch_engine {

// Qualified names ("aten::add"), sorted.
std::span<const std::string_view> AllowedOperators();

// `overload` is the part after the dot of aten::add.Tensor, "" if there is
// none. Those of packed sequences trust the lengths they are given and are not
// allowed.
bool IsOperatorAllowed(std::string_view name, std::string_view overload);

// Draws from LibTorch's generator, which is one per process.
bool IsOperatorRandom(std::string_view name);

}  // namespace selvage::client::torch_engine
