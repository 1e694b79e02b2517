#include "plan/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/status_matchers.h"
#include "tests/unit/plan/test_programs.h"

namespace selvage::plan {
namespace {

using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;
using ::testing::HasSubstr;

TaskSpec Task() {
  TaskSpec task;
  task.name = "fashion-personal";
  task.population = "demo";
  task.program = "model.yaml";
  task.seed = 18'446'744'073'709'551'615U;
  task.train = {3, 10, {OptimizerName::kSgd, 0.05}};
  task.strategy.cohort = 10;
  task.strategy.min_updates = 8;
  task.personalize.enabled = true;
  task.personalize.tensors = {"^b$"};
  task.personalize.epochs = 5;
  task.personalize.optimizer.name = OptimizerName::kAdam;
  task.personalize.optimizer.lr = 0.001;
  task.personalize.baseline_alone = true;
  task.privacy.min_cohort = 8;
  task.data = {"clothing", 20, 0.2};
  return task;
}

crypto::Digest SomeDigest() {
  crypto::Digest digest;
  digest.bytes.fill(0x5A);
  return digest;
}

Result<Plan> Make(const TaskSpec& task) {
  return MakePlan(task, SomeDigest(), test::SourceProgram());
}

constexpr std::string_view kGoldenJson =
    R"({"data":{"collection":"clothing","holdout":0.2,"min_examples":20},)"
    R"("format":1,"key_metric":"accuracy","mode":"max","personalize":{)"
    R"("baseline_alone":true,"baseline_epochs":30,"batch_size":10,"epochs":5,)"
    R"("method":"fine_tune","optimizer":{"beta1":0.9,"beta2":0.999,)"
    R"("eps":1e-08,"lr":0.001,"name":"adam","weight_decay":0.0},)"
    R"("tensors":["^b$"]},"population":"demo","privacy":{"min_cohort":8},)"
    R"("program_digest":"5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a)"
    R"(5a5a5a5a5a5a","seed":18446744073709551615,"task":"fashion-personal",)"
    R"("train":{"batch_size":10,"local_epochs":3,"optimizer":{"lr":0.05,)"
    R"("momentum":0.0,"name":"sgd","weight_decay":0.0}},"update":{)"
    R"("codec":"float16","max_abs":{"buffer_float":65536.0,"default":8.0},)"
    R"("weight_cap":10000}})";

TEST(MakePlan, DefaultsAreMadeExplicit) {
  const auto plan = Make(Task());
  ASSERT_THAT(plan, IsOk());
  EXPECT_EQ(plan->key_metric, "accuracy");
  EXPECT_EQ(plan->personalize.batch_size, 10);
  EXPECT_EQ(plan->personalize.baseline_epochs, 30);
  EXPECT_THAT(plan->Validate(), IsOk());

  TaskSpec without = Task();
  without.personalize = {};
  EXPECT_EQ(Make(without)->personalize, PersonalizeSpec{});
}

TEST(MakePlan, TaskAndProgramDoNotFit_IsNamed) {
  TaskSpec task = Task();
  task.evaluate.key_metric = "auc";
  EXPECT_THAT(Make(task),
              StatusIs(StatusCode::kInvalidArgument,
                       "evaluate.key_metric is 'auc'; the program's metrics "
                       "are accuracy, loss"));
  task = Task();
  task.personalize.tensors = {"^head"};
  EXPECT_THAT(Make(task),
              StatusIs(StatusCode::kInvalidArgument,
                       "personalize.tensors: the pattern '^head' matches no "
                       "tensor"));
  task = Task();
  task.train.batch_size = 0;
  EXPECT_THAT(Make(task),
              StatusIs(StatusCode::kInvalidArgument,
                       "train.batch_size is 0; must be in 1..65536"));
  EXPECT_THAT(
      MakePlan(Task(), crypto::Digest{}, test::SourceProgram()),
      StatusIs(StatusCode::kInvalidArgument, "program_digest is not set"));
  Program program = test::SourceProgram();
  program.metrics.clear();
  EXPECT_THAT(MakePlan(Task(), SomeDigest(), program),
              StatusIs(StatusCode::kInvalidArgument,
                       "program: metrics has 0 entries; must have 1..16"));
}

TEST(MakePlan, NothingToAverageOrFineTune_Refused) {
  Program program = test::SourceProgram();
  program.table = *TensorTable::Create(
      {{"b", {2}, DType::kFloat32, Role::kPersonal, Init::kZeros}});
  EXPECT_THAT(MakePlan(Task(), SomeDigest(), program),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("there is nothing to average")));
  program.table = *TensorTable::Create(
      {{"w", {2}, DType::kFloat32, Role::kShared, Init::kZeros},
       {"b", {2}, DType::kFloat32, Role::kBufferFloat, Init::kZeros}});
  EXPECT_THAT(MakePlan(Task(), SomeDigest(), program),
              StatusIs(StatusCode::kInvalidArgument,
                       "personalize.tensors chooses no tensor that can be "
                       "trained"));
}

TEST(MakePlan, FedRepWithoutAHeadOrABody_Refused) {
  TaskSpec task = Task();
  task.train.method = TrainMethod::kFedRep;
  task.train.head_epochs = 2;
  EXPECT_THAT(Make(task), IsOk());
  task.personalize = {};
  for (const auto& [role, missing] : {std::pair(Role::kShared, "personal"),
                                      std::pair(Role::kPersonal, "shared")}) {
    Program program = test::SourceProgram();
    program.table = *TensorTable::Create(
        {{"s", {2}, DType::kFloat32, Role::kBufferFloat, Init::kZeros},
         {"w", {2}, DType::kFloat32, role, Init::kZeros}});
    EXPECT_THAT(MakePlan(task, SomeDigest(), program),
                StatusIs(StatusCode::kInvalidArgument,
                         std::string("train.method is fedrep, but no f32 "
                                     "tensor of the program is ") +
                             missing));
  }
}

TEST(Plan, CanonicalJson_GoldenBytesAndDigest) {
  const std::string json = CanonicalJson(*Make(Task()));
  EXPECT_EQ(json, kGoldenJson);
  EXPECT_EQ(crypto::Sha256(AsBytes(json)).ToHex(),
            "b6e70a4482ebc4fe422fbf94f957779a480b629a97c402a050ead397771dee28");
}

TEST(Plan, ParsePlan_Golden_RoundTrips) {
  const auto plan = ParsePlan(kGoldenJson);
  ASSERT_THAT(plan, IsOk());
  EXPECT_EQ(*plan, *Make(Task()));
}

TEST(Plan, CanonicalJson_EqualPlans_HaveEqualBytes) {
  Plan a = *Make(Task());
  Plan b = a;
  b.train.optimizer.momentum = -0.0;
  ASSERT_EQ(a, b);
  EXPECT_EQ(CanonicalJson(a), CanonicalJson(b));
}

TEST(Plan, ParsePlan_EveryTruncation_Refused) {
  for (size_t size = 0; size < kGoldenJson.size(); ++size) {
    EXPECT_THAT(ParsePlan(kGoldenJson.substr(0, size)),
                StatusIs(StatusCode::kInvalidArgument));
  }
}

// One flipped bit anywhere: refused, or a plan that says so in its own bytes.
TEST(Plan, ParsePlan_EveryFlippedBit_NeverThePlanItWas) {
  const Plan plan = *ParsePlan(kGoldenJson);
  for (size_t i = 0; i < kGoldenJson.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string json(kGoldenJson);
      json[i] = static_cast<char>(json[i] ^ (1 << bit));
      const auto parsed = ParsePlan(json);
      if (!parsed.ok()) continue;
      EXPECT_NE(*parsed, plan) << json;
      EXPECT_EQ(CanonicalJson(*parsed), json);
    }
  }
}

std::string With(std::string_view from, std::string_view to) {
  std::string json(kGoldenJson);
  const size_t at = json.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return json.replace(at, from.size(), to);
}

TEST(Plan, ParsePlan_Mistakes_AreNamed) {
  const struct {
    std::string json;
    std::string message;
  } cases[] = {
      {"{}", "format is missing"},
      {"null", "the plan is empty; must be a mapping of keys to values"},
      {std::string(kPlanSizeMax + 1, ' '),
       "262145 bytes; at most 262144 are read"},
      {With("\"format\":1", "\"format\":2"), "format is 2; must be 1"},
      {With("\"task\":", "\"tsk\":"),
       "tsk is not a key here; did you mean task?"},
      {With("{\"data\"", "{\"clip\":1,\"data\""), "clip is not a key here"},
      {With("{\"min_cohort\":8}", "{\"clip\":1.0,\"min_cohort\":8}"),
       "privacy.clip is 1.0; must be a mapping"},
      {With("{\"min_cohort\":8}", "{\"delta\":1e-6,\"min_cohort\":8}"),
       "privacy.delta is not available in this version"},
      {With("{\"min_cohort\":8}", "{\"clip\":{},\"min_cohort\":8}"),
       "privacy.clip.norm is missing"},
      {With("{\"min_cohort\":8}",
            "{\"clip\":{\"norm\":1.0,\"z\":1},\"min_cohort\":8}"),
       "privacy.clip.z is not a key here"},
      // What is wanted by nobody is not written.
      {With("{\"data\"", "{\"conditions\":{},\"data\""),
       "the plan is not canonical JSON"},
      {With("{\"data\"",
            "{\"conditions\":{\"charging\":false,\"idle\":false,"
            "\"min_battery\":0.0,\"unmetered\":false},\"data\""),
       "the plan is not canonical JSON"},
      {With("\"codec\":\"float16\"", "\"codec\":\"int8\",\"top_k\":0.1"),
       "update.top_k: it is a parameter of the codec top_k"},
      {With("\"local_epochs\":3", "\"local_epochs\":3,\"proximal_mu\":1001"),
       "train.proximal_mu is 1001; must be in [0, 1000]"},
      {With("\"local_epochs\":3", "\"local_epochs\":3,\"proximal_mu\":0"),
       "the plan is not canonical JSON"},
      {With("\"local_epochs\":3,", ""), "the plan is not canonical JSON"},
      {With("\"lr\":0.05", "\"lr\":0.050"), "the plan is not canonical JSON"},
      {With("\"lr\":0.05", "\"lr\":5e-2"), "the plan is not canonical JSON"},
      {With("\"lr\":0.05", "\"lr\":1e999"), "malformed JSON"},
      {With("\"lr\":0.05", "\"lr\":-0.0"),
       "train.optimizer.lr is -0.0; must be in (0, 100]"},
      {With("\"lr\":0.05", "\"lr\":\"0.05\""),
       "train.optimizer.lr is the text '0.05'; must be a number in (0, 100]"},
      {With("\"holdout\":0.2", "\"holdout\":null"),
       "data.holdout is empty; must be a number in [0, 0.9]"},
      {With("\"holdout\":0.2", "\"holdout\":true"),
       "data.holdout is true; must be a number in [0, 0.9]"},
      {With("\"mode\":\"max\"", "\"mode\":\"best\""),
       "mode is the text 'best'; must be one of max, min"},
      {With("\"key_metric\":\"accuracy\"", "\"key_metric\":\"\""),
       "key_metric is ''; must be 1..64 of a-z, 0-9 and _"},
      {With("5a5a", "5A5a"), "must be a SHA-256 as 64 lower-case"},
      {With("18446744073709551615", "18446744073709551616"),
       "seed is 18446744073709551616; must be a whole number in "
       "0..18446744073709551615"},
      {With("18446744073709551615", "-1"),
       "seed is -1; must be a whole number"},
      {With("\"fashion-personal\"", "[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]"),
       "nested more than 16 levels deep"},
  };
  for (const auto& c : cases) {
    EXPECT_THAT(ParsePlan(c.json),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr(c.message)))
        << c.json.substr(0, 2000);
  }
}

TEST(Plan, PlanSigningInput_HasItsLabel) {
  EXPECT_EQ(AsText(PlanSigningInput("{}")), "selvage/v1 plan\n{}");
}

}  // namespace
}  // namespace selvage::plan
