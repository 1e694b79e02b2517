#include "client/core/update_builder.h"

#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "aggregation/codec/checkpoint_codec.h"
#include "client/core/clip.h"
#include "tests/testing/status_matchers.h"

namespace selvage::client {
namespace {

using test::IsOk;
using test::StatusIs;
using ::testing::HasSubstr;

plan::Program MakeProgram() {
  plan::Program program;
  program.source = "def forward(self, x): return x\n";
  program.inputs = {
      {.name = "x", .dtype = plan::DType::kFloat32, .shape = {2}}};
  program.metrics = {"accuracy", "loss"};
  auto table = plan::TensorTable::Create(
      {{.name = "a", .shape = {2}, .role = plan::Role::kShared},
       {.name = "mine", .shape = {2}, .role = plan::Role::kPersonal},
       {.name = "ice", .shape = {1}, .role = plan::Role::kFrozen},
       {.name = "mean", .shape = {2}, .role = plan::Role::kBufferFloat},
       {.name = "n",
        .shape = {1},
        .dtype = plan::DType::kInt64,
        .role = plan::Role::kBufferInt},
       {.name = "b", .shape = {1}, .role = plan::Role::kShared}});
  EXPECT_THAT(table, IsOk());
  program.table = *table;
  return program;
}

plan::Checkpoint Values(float fill) {
  return {.floats = std::vector<float>(8, fill), .ints = {4}};
}

class UpdateBuilderTest : public ::testing::Test {
 protected:
  UpdateBuilderTest() { plan_.update.codec = plan::CodecName::kFloat32; }

  Result<BuiltUpdate> Build() {
    return BuildUpdate(program_, plan_,
                       {.base = base_,
                        .trained = trained_,
                        .example_count = 48,
                        .holdout_scores = scores_,
                        .holdout_count = scores_.size() / 2});
  }
  std::vector<float> Decoded(const BuiltUpdate& update) {
    return *aggregation::Decode(update.codec,
                                aggregation::UpdateCounts(program_.table),
                                update.encoded);
  }

  plan::Program program_ = MakeProgram();
  plan::Plan plan_;
  plan::Checkpoint base_ = Values(1);
  plan::Checkpoint trained_ = Values(1);
  std::vector<float> scores_;
};

TEST_F(UpdateBuilderTest, BuildUpdate_Delta_CoversSharedAndBuffersInOrder) {
  // a (0, 1), mine (2, 3), ice (4), mean (5, 6), b (7)
  trained_.floats = {1.5F, 2, 100, 100, 100, 1001, 1, 0};

  const Result<BuiltUpdate> update = Build();

  ASSERT_THAT(update, IsOk());
  EXPECT_THAT(Decoded(*update), ::testing::ElementsAre(0.5F, 1, 1000, 0, -1));
  EXPECT_EQ(update->digest, crypto::Sha256(update->encoded));
  EXPECT_EQ(update->weight, 48U);
  EXPECT_TRUE(update->metrics.empty());
}

TEST_F(UpdateBuilderTest, BuildUpdate_TensorByTensor_IsTheSame) {
  class Tensors final : public BaseTensors {
   public:
    Tensors(const plan::TensorTable& table, const plan::Checkpoint& values)
        : table_(table), values_(values) {}
    Status Read(size_t entry, std::vector<float>& out) override {
      const auto& place = table_.entries()[entry];
      const auto begin =
          values_.floats.begin() + static_cast<std::ptrdiff_t>(place.offset);
      out.assign(begin, begin + static_cast<std::ptrdiff_t>(place.count));
      return OkStatus();
    }

   private:
    const plan::TensorTable& table_;
    const plan::Checkpoint& values_;
  };
  struct Pieces final : UpdateSink {
    Status Append(ByteSpan piece) override {
      ++appended;
      AppendBytes(bytes, piece);
      return status;
    }
    Bytes bytes;
    int appended = 0;
    Status status;
  };
  Tensors tensors(program_.table, base_);
  const plan::Checkpoint nothing;
  trained_.floats = {1.5F, 2, 100, 100, 100, 1001, 1, 0.3F};
  for (const auto codec :
       {plan::CodecName::kFloat32, plan::CodecName::kFloat16,
        plan::CodecName::kBFloat16, plan::CodecName::kInt8}) {
    plan_.update.codec = codec;
    ASSERT_TRUE(BuildsByTensor(plan_));
    const auto build = [&](const plan::Checkpoint& base, BaseTensors* by,
                           UpdateSink* sink = nullptr) {
      SeededRandom random(7);
      return BuildUpdate(program_, plan_,
                         {.base = base,
                          .trained = trained_,
                          .example_count = 48,
                          .holdout_scores = scores_,
                          .random = &random,
                          .base_tensors = by,
                          .sink = sink});
    };
    const Result<BuiltUpdate> whole = build(base_, nullptr);
    const Result<BuiltUpdate> parts = build(nothing, &tensors);
    ASSERT_THAT(whole, IsOk());
    ASSERT_THAT(parts, IsOk());
    EXPECT_EQ(parts->encoded, whole->encoded);
    EXPECT_EQ(parts->digest, whole->digest);
    EXPECT_EQ(parts->norm, whole->norm);
    EXPECT_EQ(parts->weight, whole->weight);
    // Where there is a sink it has the same bytes, and the update none.
    Pieces pieces;
    const Result<BuiltUpdate> sent = build(nothing, &tensors, &pieces);
    ASSERT_THAT(sent, IsOk());
    EXPECT_EQ(pieces.bytes, whole->encoded);
    EXPECT_EQ(pieces.appended, 3);  // one a tensor
    EXPECT_TRUE(sent->encoded.empty());
    EXPECT_EQ(sent->size_bytes(), whole->encoded.size());
    EXPECT_EQ(sent->digest, whole->digest);
    EXPECT_EQ(sent->norm, whole->norm);
    pieces.status = ResourceExhausted("full");
    EXPECT_THAT(build(nothing, &tensors, &pieces),
                StatusIs(StatusCode::kResourceExhausted));
    plan_.update.max_abs_default = 0.9;
    EXPECT_EQ(build(nothing, &tensors).status().ToString(),
              build(base_, nullptr).status().ToString());
    EXPECT_THAT(build(nothing, &tensors), StatusIs(StatusCode::kOutOfRange));
    plan_.update.max_abs_default = plan::UpdateSpec().max_abs_default;
  }
  plan_.privacy.clip_norm = 1;
  EXPECT_FALSE(BuildsByTensor(plan_));
}

TEST_F(UpdateBuilderTest, BuildUpdate_PersonalAndFrozen_ChangeNoByte) {
  const Bytes before = Build()->encoded;
  trained_.floats[2] = std::numeric_limits<float>::quiet_NaN();
  trained_.floats[3] = 12345.678F;
  trained_.floats[4] = 9.5F;
  trained_.ints[0] = 77;

  const Result<BuiltUpdate> update = Build();

  ASSERT_THAT(update, IsOk());
  EXPECT_EQ(update->encoded, before);
}

TEST_F(UpdateBuilderTest, BuildUpdate_AtTheBound_IsRefusedByName) {
  plan_.update.max_abs_default = 2;
  trained_.floats[7] = 3;  // exactly the bound

  EXPECT_THAT(Build(), StatusIs(StatusCode::kOutOfRange,
                                HasSubstr("the change of b[0] (2) is not "
                                          "inside the bound (2)")));
  trained_.floats[7] = std::nextafter(3.0F, 0.0F);
  EXPECT_THAT(Build(), IsOk());
}

TEST_F(UpdateBuilderTest, BuildUpdate_Clip_ScalesTheWholeUpdate) {
  plan_.privacy.clip_norm = 5;
  trained_.floats = {1 + 3, 1, 1e30F, 1, 1, 1 + 4, 1, 1};  // norm 5: as it is
  ASSERT_THAT(Build(), IsOk());
  EXPECT_EQ(Build()->norm, 5);
  EXPECT_THAT(Decoded(*Build()), ::testing::ElementsAre(3, 0, 4, 0, 0));

  plan_.privacy.clip_norm = 2.5;
  EXPECT_EQ(Build()->norm, 2.5);
  EXPECT_THAT(Decoded(*Build()), ::testing::ElementsAre(1.5F, 0, 2, 0, 0));
  for (const auto codec :
       {plan::CodecName::kFloat32, plan::CodecName::kFloat16}) {
    plan_.update.codec = codec;
    plan_.privacy.clip_norm = 1.0 / 3;
    EXPECT_LE(Build()->norm, 1.0 / 3);
    EXPECT_GT(Build()->norm, 0.333);
  }
}

TEST_F(UpdateBuilderTest, BuildUpdate_ClipAndRange_HoldForWhatIsSent) {
  plan_.update.max_abs_default = 2;
  trained_.floats[7] = 1000;
  EXPECT_THAT(Build(), StatusIs(StatusCode::kOutOfRange, HasSubstr("b[0]")));
  plan_.privacy.clip_norm = 1;
  EXPECT_THAT(Build(), IsOk());
  plan_.privacy.clip_norm = 3;
  EXPECT_THAT(Build(), StatusIs(StatusCode::kOutOfRange, HasSubstr("b[0]")));
  plan_.privacy.clip_norm = 1;
  trained_.floats[7] = std::numeric_limits<float>::infinity();
  EXPECT_THAT(Build(), StatusIs(StatusCode::kOutOfRange, HasSubstr("b[0]")));
}

// What is sent and what is left over add up to what there was, in every round.
TEST_F(UpdateBuilderTest, BuildUpdate_TopK_LosesNothing) {
  plan_.update.codec = plan::CodecName::kTopK;
  plan_.update.top_k = 0.5;
  trained_.floats = {3, 1.5F, 9, 9, 9, 1.25F, 1, 1.5F};
  const std::vector<size_t> counts = aggregation::UpdateCounts(program_.table);
  std::vector<float> residual(5);
  std::vector<float> sent(5);
  const std::vector<float> delta = {2, 0.5F, 0.25F, 0, 0.5F};
  for (int round = 1; round <= 6; ++round) {
    const Result<BuiltUpdate> update = BuildUpdate(program_, plan_,
                                                   {.base = base_,
                                                    .trained = trained_,
                                                    .example_count = 48,
                                                    .holdout_scores = {},
                                                    .residual = residual});
    ASSERT_THAT(update, IsOk());
    const std::vector<float> decoded =
        *aggregation::Decode(plan_.update, counts, update->encoded);
    ASSERT_EQ(update->residual_change.size(), residual.size());
    for (size_t i = 0; i < residual.size(); ++i) {
      residual[i] += update->residual_change[i];
      sent[i] += decoded[i];
      EXPECT_FLOAT_EQ(sent[i] + residual[i],
                      static_cast<float>(round) * delta[i]);
    }
  }
  EXPECT_GT(sent[1], 0);  // its turn came
}

TEST_F(UpdateBuilderTest, BuildUpdate_TopKAndClip_ResidualStaysBelowTheClip) {
  plan_.update.codec = plan::CodecName::kTopK;
  plan_.update.top_k = 0.01;
  plan_.privacy.clip_norm = 0.5;
  trained_.floats = {3, 1.5F, 9, 9, 9, 1.25F, 1, 1.5F};
  std::vector<float> residual(5);
  for (int round = 0; round < 20; ++round) {
    const Result<BuiltUpdate> update = BuildUpdate(program_, plan_,
                                                   {.base = base_,
                                                    .trained = trained_,
                                                    .example_count = 48,
                                                    .holdout_scores = {},
                                                    .residual = residual});
    ASSERT_THAT(update, IsOk());
    EXPECT_LE(update->norm, 0.5);
    for (size_t i = 0; i < residual.size(); ++i) {
      residual[i] += update->residual_change[i];
    }
    EXPECT_LE(L2Norm(residual), 0.5 + 1e-6);
  }
}

TEST_F(UpdateBuilderTest, BuildUpdate_StochasticCodecs_AreWithinBoundAndClip) {
  trained_.floats = {3, 1.5F, 9, 9, 9, 1.25F, 1, 1.5F};
  plan_.privacy.clip_norm = 0.5;
  for (const plan::CodecName codec :
       {plan::CodecName::kInt8, plan::CodecName::kRotatedInt8}) {
    plan_.update.codec = codec;
    for (uint64_t seed = 0; seed < 200; ++seed) {
      SeededRandom random(seed);
      const Result<BuiltUpdate> update = BuildUpdate(program_, plan_,
                                                     {.base = base_,
                                                      .trained = trained_,
                                                      .example_count = 48,
                                                      .holdout_scores = {},
                                                      .random = &random});
      ASSERT_THAT(update, IsOk());
      EXPECT_LE(update->norm, 0.5);
      EXPECT_TRUE(update->residual_change.empty());
    }
  }
}

TEST_F(UpdateBuilderTest, BuildUpdate_BufferBound_IsItsOwn) {
  plan_.update.max_abs_default = 2;
  plan_.update.max_abs_buffer_float = 1024;
  trained_.floats[5] = 1001;
  EXPECT_THAT(Build(), IsOk());
  trained_.floats[5] = 1025;
  EXPECT_THAT(Build(), StatusIs(StatusCode::kOutOfRange, HasSubstr("mean[0]")));
}

// 1.9999 becomes 2.0 in half precision, and the coordinator would see 2.0.
TEST_F(UpdateBuilderTest, BuildUpdate_RoundingReachesTheBound_IsRefused) {
  plan_.update.max_abs_default = 2;
  plan_.update.codec = plan::CodecName::kFloat16;
  base_ = Values(0);
  trained_ = Values(0);
  trained_.floats[0] = 1.99999F;
  EXPECT_THAT(Build(), StatusIs(StatusCode::kOutOfRange, HasSubstr("a[0]")));
  trained_.floats[0] = 1.99F;
  EXPECT_THAT(Build(), IsOk());
}

TEST_F(UpdateBuilderTest, BuildUpdate_NotFinite_IsRefused) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    trained_ = Values(1);
    trained_.floats[1] = bad;
    EXPECT_THAT(Build(), StatusIs(StatusCode::kOutOfRange, HasSubstr("a[1]")));
  }
}

TEST_F(UpdateBuilderTest, BuildUpdate_Weight_IsCapped) {
  plan_.update.weight_cap = 10;
  EXPECT_EQ(Build()->weight, 10U);
}

TEST_F(UpdateBuilderTest, BuildUpdate_Metrics_AreSumsOverTheHoldout) {
  scores_ = {1, 0.5F, 0, 1.5F, 1, 0.25F};

  const Result<BuiltUpdate> update = Build();

  ASSERT_THAT(update, IsOk());
  ASSERT_EQ(update->metrics.size(), 2U);
  EXPECT_EQ(update->metrics[0].count, 3);
  EXPECT_EQ(update->metrics[0].numerator, int64_t{2} << 20);
  EXPECT_EQ(update->metrics[1].numerator, (int64_t{9} << 20) / 4);
}

TEST_F(UpdateBuilderTest, BuildUpdate_WrongShapes_AreRefused) {
  scores_ = {1, 2};
  trained_.floats.pop_back();
  EXPECT_THAT(Build(), StatusIs(StatusCode::kInvalidArgument));
  trained_ = Values(1);
  EXPECT_THAT(BuildUpdate(program_, plan_,
                          {.base = base_,
                           .trained = trained_,
                           .example_count = 1,
                           .holdout_scores = scores_,
                           .holdout_count = 2}),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(BuildUpdate(program_, plan_,
                          {.base = base_,
                           .trained = trained_,
                           .example_count = 0,
                           .holdout_scores = {},
                           .holdout_count = 0}),
              StatusIs(StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace selvage::client
