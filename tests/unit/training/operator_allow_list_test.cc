#include "client/training/torch/operator_allow_list.h"

#include <gtest/gtest.h>

namespace selvage::client::torch_engine {
namespace {

TEST(OperatorAllowListTest, IsOperatorAllowed_OrdinaryTraining_Yes) {
  for (const char* name :
       {"aten::linear", "aten::conv2d", "aten::batch_norm", "aten::lstm",
        "aten::cross_entropy_loss", "aten::embedding", "aten::dropout",
        "aten::softmax", "prim::If", "prim::Loop", "prim::Constant"}) {
    EXPECT_TRUE(IsOperatorAllowed(name, "")) << name;
  }
}

TEST(OperatorAllowListTest, IsOperatorAllowed_FilesMemoryAndProcess_No) {
  for (const char* name : {"aten::save",
                           "aten::from_file",
                           "aten::empty",
                           "aten::empty_like",
                           "aten::resize_",
                           "aten::as_strided",
                           "aten::set_",
                           "aten::set_data",
                           "aten::embedding_bag",
                           "aten::manual_seed",
                           "aten::set_grad_enabled",
                           "aten::backward",
                           "aten::warn",
                           "aten::_embedding_bag",
                           "prim::Print",
                           "prim::PythonOp",
                           "prim::Enter",
                           "prim::CreateObject",
                           "prim::CallMethod",
                           "prim::CallFunction",
                           "prim::SetAttr",
                           "prim::fork",
                           "prim::data",
                           "profiler::_record_function_enter",
                           "quantized::linear",
                           "selvage::tick",
                           "aten",
                           "aten::",
                           ""}) {
    EXPECT_FALSE(IsOperatorAllowed(name, "")) << name;
  }
}

TEST(OperatorAllowListTest, IsOperatorAllowed_PackedSequences_No) {
  EXPECT_TRUE(IsOperatorAllowed("aten::lstm", "input"));
  EXPECT_FALSE(IsOperatorAllowed("aten::lstm", "data"));
  EXPECT_FALSE(IsOperatorAllowed("aten::gru", "data"));
}

TEST(OperatorAllowListTest, AllowedOperators_NoInternals) {
  for (const std::string_view name : AllowedOperators()) {
    const bool internal =
        name.starts_with("aten::_") && !name.starts_with("aten::__") &&
        name != "aten::_convolution" && name != "aten::_set_item";
    EXPECT_FALSE(internal) << name;
  }
}

TEST(OperatorAllowListTest, IsOperatorRandom_DropoutAndKin_Yes) {
  EXPECT_TRUE(IsOperatorRandom("aten::dropout"));
  EXPECT_TRUE(IsOperatorRandom("aten::lstm"));
  EXPECT_FALSE(IsOperatorRandom("aten::linear"));
}

}  // namespace
}  // namespace selvage::client::torch_engine
